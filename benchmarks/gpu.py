"""Measures Stable Diffusion 1.5 on this machine's GPU, ours beside diffusers compiled by PyTorch:

    python -m benchmarks.gpu [--images 32] [--drawn 8] [--repeats 10] [--out gpu.md]

Images a second of a training step from latents and from pixels (the U-Net trains with AdamW, the
text encoder is frozen, bfloat16 with float32 parameters, 512 pixels), and of drawing with 50 steps
of DDIM and guidance; with the share of the GPU's peak that the products take. Theirs is in
bfloat16, channels last, `torch.compile` with maximal tuning. Weights are random, which changes no
time. Both stand in the memory together: for both halves on a small GPU take fewer images. The table
is written to --out as benchmarks/RESULTS.md has it. Needs the extras `cuda` and `parity`, and
PyTorch with CUDA. `--reduced` is a small model, which a CPU can run too.
"""

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

# PyTorch needs a share of the memory, too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import diffusers  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402

from benchmarks import pods, timing, torchvision_python  # noqa: E402, F401
from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.core import flops, sharding  # noqa: E402

STEPS, GUIDANCE = pods.SAMPLER_STEPS, pods.GUIDANCE
RATE, DECAY = 1e-4, 1e-2


# ----------------------------------------------------------------------------------------- ours


def our_run(reduced: bool) -> tuple[cfg.DiffusionRun, cfg.Autoencoder]:
    """The shipped run of Stable Diffusion 1.5, whose U-Net alone trains, without an average."""
    run, autoencoder = pods.reduced() if reduced else pods.full()
    optim = replace(run.optim, ema_decay=None, learning_rate=RATE, weight_decay=DECAY)
    run = replace(run, train=("unet",), optim=optim, mesh=cfg.Mesh())
    return replace(run, loop=replace(run.loop, remat=False, dtype="bfloat16")), autoencoder


def filled(shapes: Any) -> Any:
    """Arrays of these shapes: small random numbers, whole numbers 0."""
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(0), len(leaves))

    def fill(key: Any, leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            return (0.02 * jax.random.normal(key, leaf.shape)).astype(leaf.dtype)
        return jnp.zeros(leaf.shape, leaf.dtype)

    return jax.tree.unflatten(structure, list(map(jax.jit(fill, static_argnums=1), keys, leaves)))


def our_step(reduced: bool, images: int, encoded: bool) -> tuple[Callable[[], None], int]:
    """A call that makes a training step, and the FLOPs of its products."""
    run, autoencoder = our_run(reduced)
    mesh = sharding.make_mesh(run.mesh, jax.devices()[:1])
    traced = pods.trace_training_step(run, autoencoder, mesh, images, encoded)
    state, *others = map(filled, traced.in_avals[0])
    program = traced.lower().compile()

    def call() -> None:
        nonlocal state
        state, metrics = program(state, *others)
        jax.block_until_ready(metrics)

    return call, flops.count(traced.jaxpr.jaxpr)


def our_sampler(reduced: bool, images: int) -> tuple[Callable[[], None], int]:
    """A call that draws, and the FLOPs of its products."""
    run, autoencoder = our_run(reduced)
    mesh = sharding.make_mesh(run.mesh, jax.devices()[:1])
    traced = pods.trace_sampler(run, autoencoder, mesh, images)
    arguments, program = list(map(filled, traced.in_avals[0])), traced.lower().compile()
    return lambda: jax.block_until_ready(program(*arguments)), flops.count(traced.jaxpr.jaxpr)


# --------------------------------------------------------------------------------------- theirs


def their_models(reduced: bool, device: str) -> tuple[Any, Any, Any]:
    """U-Net, autoencoder and text encoder with random weights."""
    if reduced:
        unet = diffusers.UNet2DConditionModel(
            block_out_channels=(64, 128), layers_per_block=1, cross_attention_dim=64,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=2,
        )  # fmt: skip
        levels = 2
        vae = {"block_out_channels": (32, 64), "layers_per_block": 1}
        text = {"vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 1,
                "num_attention_heads": 2, "intermediate_size": 256}  # fmt: skip
    else:
        unet = diffusers.UNet2DConditionModel(
            cross_attention_dim=768, attention_head_dim=8, sample_size=64
        )
        levels = 4
        vae = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
        text = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
                "intermediate_size": 3072}  # fmt: skip
    first = diffusers.AutoencoderKL(
        latent_channels=4, down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, **vae,
    )  # fmt: skip
    words = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text))
    return tuple(
        model.to(device, memory_format=torch.channels_last) for model in (unet, first, words)
    )


def their_step(reduced: bool, images: int, encoded: bool, device: str) -> Callable[[], None]:
    """A call that makes a training step."""
    unet, first, words = their_models(reduced, device)
    first, words = (model.requires_grad_(False).bfloat16() for model in (first, words))
    run, autoencoder = our_run(reduced)
    side = run.data.image_size
    factor = 2 ** (len(autoencoder.block_out_channels) - 1)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=RATE, weight_decay=DECAY,
                                  fused=device == "cuda")  # fmt: skip
    schedule = diffusers.DDPMScheduler().alphas_cumprod.to(device)
    latents = torch.randn(images, 4, side // factor, side // factor, device=device)
    pixels = torch.randn(images, 3, side, side, device=device, dtype=torch.bfloat16)
    latents, pixels = (x.to(memory_format=torch.channels_last) for x in (latents, pixels))
    tokens = torch.zeros(images, 77, dtype=torch.long, device=device)

    @torch.compile(disable=device != "cuda")
    def loss(latents: Any, context: Any, eps: Any, t: Any) -> Any:
        alpha_bar = schedule[t].reshape(-1, 1, 1, 1)
        noisy = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * eps
        with torch.autocast(device, torch.bfloat16):
            output = unet(noisy, t, encoder_hidden_states=context).sample
        return torch.nn.functional.mse_loss(output.float(), eps)

    def call() -> None:
        with torch.no_grad():
            context = words(tokens).last_hidden_state
            seen = latents if encoded else first.encode(pixels).latent_dist.sample().float()
        t = torch.randint(1000, (images,), device=device)
        loss(seen, context, torch.randn_like(seen), t).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)

    return call


def their_sampler(reduced: bool, images: int, device: str) -> Callable[[], None]:
    """A call that draws."""
    unet, first, words = (m.bfloat16().eval() for m in their_models(reduced, device))
    run, autoencoder = our_run(reduced)
    side = run.data.image_size // 2 ** (len(autoencoder.block_out_channels) - 1)
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    compiled = dict(mode="max-autotune", fullgraph=True, disable=device != "cuda")
    predict, decode = torch.compile(unet, **compiled), torch.compile(first.decode, **compiled)
    tokens = torch.zeros(2 * images, 77, dtype=torch.long, device=device)

    @torch.no_grad()
    def call() -> None:
        context = words(tokens).last_hidden_state
        x = torch.randn(images, 4, side, side, device=device, dtype=torch.bfloat16)
        x = x.to(memory_format=torch.channels_last)
        scheduler.set_timesteps(STEPS)
        for t in scheduler.timesteps:
            both = predict(torch.cat([x, x]), t.to(device), encoder_hidden_states=context).sample
            uncond, conditional = both.chunk(2)
            x = scheduler.step(uncond + GUIDANCE * (conditional - uncond), t, x).prev_sample
        decode(x)
        _wait(device)

    return call


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# ---------------------------------------------------------------------------------------- table


def main() -> int:
    """Prints the table; returns 1 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32, help="of a training step")
    parser.add_argument("--drawn", type=int, default=8, help="images drawn at once")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--reduced", action="store_true", help="a small model, on a CPU too")
    given = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    ours = jax.devices()[0].platform
    if not given.reduced and (device, ours) != ("cuda", "gpu"):
        print(f"no GPU: JAX computes on {ours}, PyTorch on {device}; --reduced runs anywhere")
        return 1
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    peak = flops.peak(name)
    small, n, drawn = given.reduced, given.images, given.drawn
    programs = {
        "training from latents": (
            n, lambda: our_step(small, n, True), lambda: their_step(small, n, True, device)
        ),
        "training from pixels": (
            n, lambda: our_step(small, n, False), lambda: their_step(small, n, False, device)
        ),
        f"drawing {drawn}": (
            drawn, lambda: our_sampler(small, drawn), lambda: their_sampler(small, drawn, device)
        ),
    }  # fmt: skip
    rows = [f"{name}; {timing.machine().strip()}", "",
            "| | diffusers, compiled | ldm_jax | times as fast | of the peak |",
            "|---|---|---|---|---|"]  # fmt: skip
    for what, (count, ours_of, theirs_of) in programs.items():
        our_call, work = ours_of()
        calls = {"diffusers": theirs_of(), "ldm_jax": our_call}
        seconds = timing.in_turn(calls, given.repeats)
        calls.clear()  # and with them what they hold in memory
        del our_call
        theirs, own = (float(np.median(seconds[key])) for key in ("diffusers", "ldm_jax"))
        share = "" if peak is None else f"{work / own / peak:.0%}"
        rows.append(f"| {what} | {count / theirs:.2f} images/s | {count / own:.2f} images/s | "
                    f"{theirs / own:.2f} | {share} |")  # fmt: skip
    text = "\n".join(rows) + "\n"
    print(text)
    if given.out is not None:
        given.out.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
