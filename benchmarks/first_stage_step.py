"""A training step of kl-f8 with all its losses on this machine's CPU, ours beside PyTorch's.

    python -m benchmarks.first_stage_step [--size=256] [--batch=1] [--repeats=2] [--profile]

Both sides: Stable Diffusion's autoencoder, L1 + LPIPS (VGG16 with random weights, whose values do
not matter for time) summed as published, the KL term, PatchGAN with batch norm, the adaptive weight
at the decoder's last layer, hinge losses, and Adam for autoencoder and discriminator; the
discriminator learns from the reconstructions that the autoencoder has learnt from. PyTorch's side
is written plainly with autograd, as the published code is. `--profile` times the parts of ours
instead. Needs the extra `parity`.
"""

import argparse
from collections.abc import Callable
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks import timing, torchvision_python  # noqa: F401
from ldm_jax import config as cfg
from ldm_jax.core.kept_memory import keep_freed_memory
from ldm_jax.models.build import build_autoencoder
from ldm_jax.models.lpips import LPIPS
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.autoencoder_stage import fresh_params
from ldm_jax.training.autoencoder_step import create_autoencoder_state, make_autoencoder_step

RATE, BETAS = 4.5e-6, (0.5, 0.9)
KL_WEIGHT, DISC_WEIGHT = 1e-6, 0.5
POOL = "pool"
VGG = (64, 64, POOL, 128, 128, POOL, *(256,) * 3, POOL, *(512,) * 3, POOL, *(512,) * 3)
"""Channels of VGG16's convolutions, and where it pools."""
COMPARED = (1, 3, 6, 9, 12)


def our_run(size: int, batch: int) -> cfg.AutoencoderRun:
    """kl-f8 as published, its discriminator from the first step on."""
    return cfg.AutoencoderRun(
        data=cfg.Data(source=cfg.ImageFolder(path="none"), image_size=size, batch_size=batch),
        autoencoder=cfg.Autoencoder(latent_scale=0.18215),
        loss=cfg.AutoencoderLoss(
            reduction="published_kl", kl_weight=KL_WEIGHT, perceptual=cfg.Perceptual(),
            adversarial=cfg.Adversarial(weight=DISC_WEIGHT, start=0),
        ),
        optim=cfg.Optim(
            learning_rate=RATE, beta1=BETAS[0], beta2=BETAS[1], clip_norm=None, ema_decay=None
        ),
    )  # fmt: skip


def ours(images: np.ndarray) -> tuple[Callable[[], None], Any]:
    """A call that makes one step of ours, and the compiled program."""
    run = our_run(images.shape[1], len(images))
    autoencoder = build_autoencoder(run.autoencoder)
    losses = AutoencoderLoss(autoencoder, run)
    pair = jnp.zeros((1, 64, 64, 3))
    frozen = {"perceptual": jax.jit(LPIPS().init)(jax.random.key(0), pair, pair)["params"]}
    state = jax.jit(lambda: create_autoencoder_state(run, fresh_params(losses)))()
    batch = {"image": jnp.asarray(images), "index": jnp.arange(len(images), dtype=jnp.uint32)}
    step = jax.jit(make_autoencoder_step(autoencoder, run), donate_argnums=0)
    program = step.lower(state, frozen, batch).compile()

    def call() -> None:
        nonlocal state
        state, metrics = jax.block_until_ready(program(state, frozen, batch))
        if not np.isfinite(float(metrics["loss"])):
            raise SystemExit("the loss is not finite")

    return call, program


def discriminator() -> nn.Sequential:
    """PatchGAN with three layers of stride 2."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.LeakyReLU(0.2)]
    for features, stride in ((128, 2), (256, 2), (512, 1)):
        layers += [
            nn.Conv2d(features // 2, features, 4, stride, 1, bias=False),
            nn.BatchNorm2d(features), nn.LeakyReLU(0.2),
        ]  # fmt: skip
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, 1, 1))


class Perceptual(nn.Module):
    """LPIPS on VGG16, all of it frozen."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3] + [width for width in VGG if width != POOL]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.heads = nn.ParameterList(torch.rand(1, widths[i + 1], 1, 1) for i in COMPARED)
        self.requires_grad_(False)

    def features(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Unit vectors of channels at the five places."""
        found, number = [], 0
        for width in VGG:
            if width == POOL:
                x = functional.max_pool2d(x, 2)
                continue
            x = functional.relu(self.convolutions[number](x))
            if number in COMPARED:
                found.append(functional.normalize(x, dim=1))
            number += 1
        return found

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The distance of each pair."""
        pairs = zip(self.features(x), self.features(y), self.heads, strict=True)
        return sum((((a - b) ** 2) * head).sum(1).mean((1, 2)) for a, b, head in pairs)


def theirs(images: np.ndarray) -> Callable[[], None]:
    """A call that makes one step of diffusers' autoencoder with PyTorch's losses."""
    autoencoder = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), latent_channels=4, layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip
    perceptual, judge = Perceptual(), discriminator()
    optimizers = [
        torch.optim.Adam(network.parameters(), lr=RATE, betas=BETAS)
        for network in (autoencoder, judge)
    ]
    pixels = torch.tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    last = autoencoder.decoder.conv_out.weight

    def call() -> None:
        posterior = autoencoder.encode(pixels).latent_dist
        made = autoencoder.decode(posterior.sample()).sample
        error = (made - pixels).abs() + perceptual(made, pixels)[:, None, None, None]
        nll = error.sum() / len(pixels)
        judge.requires_grad_(False)
        adversarial = -judge(made).mean()
        norms = [
            torch.autograd.grad(loss, last, retain_graph=True)[0].norm()
            for loss in (nll, adversarial)
        ]
        weight = (norms[0] / (norms[1] + 1e-4)).clamp(0, 1e4).detach() * DISC_WEIGHT
        loss = nll + KL_WEIGHT * posterior.kl().mean() + weight * adversarial
        optimizers[0].zero_grad()
        loss.backward()
        optimizers[0].step()
        judge.requires_grad_(True)
        real, fake = judge(pixels), judge(made.detach())
        optimizers[1].zero_grad()
        (0.5 * (functional.relu(1 - real).mean() + functional.relu(1 + fake).mean())).backward()
        optimizers[1].step()

    return call


def main() -> None:
    """Prints the times, their ratio, and what the program of ours needs in memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    shape = (arguments.batch, arguments.size, arguments.size, 3)
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    if arguments.profile:
        profile(images, arguments.repeats)
        return
    call, program = ours(images)
    memory = program.memory_analysis()
    print(f"arguments {memory.argument_size_in_bytes / 1e9:.2f} GB, "
          f"temporaries {memory.temp_size_in_bytes / 1e9:.2f} GB")  # fmt: skip
    seconds = timing.in_turn({"torch": theirs(images), "ldm_jax": call}, arguments.repeats)
    title = f"Training step of kl-f8, {arguments.size} px, batch {arguments.batch}, float32"
    timing.report(title, seconds, "ldm_jax", "torch")


def profile(images: np.ndarray, repeats: int) -> None:
    """Prints seconds of the forward pass of each network, compiled apart, and their gradients."""
    run = our_run(images.shape[1], len(images))
    autoencoder = build_autoencoder(run.autoencoder)
    losses = AutoencoderLoss(autoencoder, run)
    params = jax.jit(lambda: fresh_params(losses))()
    pixels = jnp.asarray(images, jnp.float32) / 127.5 - 1
    side = images.shape[1] // run.autoencoder.factor
    latents = jnp.zeros((len(images), side, side, run.autoencoder.latent_channels))
    lpips = jax.jit(LPIPS().init)(jax.random.key(0), pixels, pixels)["params"]

    def encode(params: Any, pixels: Any) -> Any:
        return autoencoder.apply({"params": params}, pixels, method="encode").mode

    def decode(params: Any, latents: Any) -> Any:
        return autoencoder.apply({"params": params}, latents, method="decode")

    def distance(image: Any, lpips: Any, pixels: Any) -> Any:
        return LPIPS().apply({"params": lpips}, image, pixels).sum()

    def squared(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: jnp.sum(function(*args) ** 2)

    parts = {
        "encoder": (encode, (params, pixels)),
        "encoder and gradient": (jax.grad(squared(encode)), (params, pixels)),
        "decoder": (decode, (params, latents)),
        "decoder and gradients": (jax.grad(squared(decode), (0, 1)), (params, latents)),
        "LPIPS and gradient": (jax.grad(distance), (pixels * 0.9, lpips, pixels)),
    }
    programs = {}
    for name, (function, args) in parts.items():
        compiled = jax.jit(function).lower(*args).compile()
        programs[name] = lambda compiled=compiled, args=args: jax.block_until_ready(compiled(*args))
    programs["whole step"] = ours(images)[0]
    for name, seconds in timing.in_turn(programs, repeats).items():
        print(f"  {name:24} {min(seconds):8.2f} s")


if __name__ == "__main__":
    main()
