"""Compiles Stable Diffusion 1.5's training step, those of its U-Net alone from latents and encoded
captions (square, and in an aspect bucket) and of a LoRA beside it, its sampler, and the training
step of its first stage with a discriminator for TPU pods and CUDA GPUs, without any.

    python -m benchmarks.pods [--reduced] [--topology v5e:4x4 v5e:16x16] [--program train first]
    python -m benchmarks.pods --reduced --topology v5e:4x4x2slices v5p:2x2x4 v6e:4x4
    python -m benchmarks.pods --reduced --topology h100:8 a100:8

Of each program: memory of one chip; FLOPs; bytes that one chip sends; the time that these take at
the full speed of its links, compared with the time of the FLOPs at its full speed; the share that
is sent beside other work. Where chips are of several slices, the same of what goes between slices,
at one chip's share of the network.

The compilers come with the extras `pods` and `gpus`. Only shapes go in, so no parameter is ever
made. The full size takes up to an hour a program; with JAX_OPTIMIZATION_LEVEL=O1 in the
environment a quarter of that, without what XLA does to send beside other work.
"""

import argparse
import collections
import math
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks.compiled import Exchange, exchanges
from benchmarks.topologies import link_share, options_for, topology
from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.adapters.adapted import adapt
from ldm_jax.core import flops, sharding
from ldm_jax.models.build import build_autoencoder
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.guidance import Guidance
from ldm_jax.sampling.levels import levels
from ldm_jax.training.autoencoder_loss import AutoencoderLoss
from ldm_jax.training.autoencoder_stage import fresh_params
from ldm_jax.training.autoencoder_step import create_autoencoder_state, make_autoencoder_step
from ldm_jax.training.diffusion_step import make_diffusion_step
from ldm_jax.training.optim import make_optimizer
from ldm_jax.training.state import create_state
from ldm_jax.training.trainable import split, with_adapter

CONFIGS = Path(__file__).parent.parent / "configs"
TOPOLOGIES = ["v5e:4x4", "v5e:16x16", "v5e:4x4x2slices", "v5p:2x2x4", "v6e:4x4"]
TRAIN_IMAGES = 8
SAMPLE_IMAGES = 4
FIRST_STAGE_IMAGES = 4
"""Images of one chip."""
BUCKET = 1.5
"""Width of the pictures of an aspect bucket, in those of their height."""
FIRST_STAGE_SIDE = 256
"""The pixels along a side of what first stages are trained on."""
SAMPLER_STEPS = 50
GUIDANCE = 7.5


@dataclass(frozen=True)
class Facts:
    """What the compiler says of one program; memory and FLOPs are those of one chip."""

    arguments: int
    temporaries: int
    total: int
    """Bytes of arguments, temporaries, and outputs that do not take an argument's place."""
    flops: float
    exchanges: tuple[Exchange, ...]
    """What chips send each other."""
    unread: str
    """Why that is not known, where jaxlib cannot read the program that libtpu made, or nothing says
    how often its loops run; otherwise nothing."""

    def sent(self, between_slices: bool = False) -> tuple[float, float]:
        """Bytes that one chip sends within its slice, or to others; and the share of them that is
        sent beside other work."""
        some = [one for one in self.exchanges if (one.slices > 1) == between_slices]
        sent = sum(one.sent for one in some)
        return sent, sum(one.sent for one in some if one.beside) / max(sent, 1)


def full() -> tuple[cfg.DiffusionRun, cfg.Autoencoder]:
    """Stable Diffusion 1.5 as in configs/."""
    run = cfg.load(CONFIGS / "stable_diffusion_v1.py")
    return run, cfg.load(CONFIGS / "stable_diffusion_autoencoder.py").autoencoder


def reduced() -> tuple[cfg.DiffusionRun, cfg.Autoencoder]:
    """The same with few and narrow layers and 8x8 latents, too short for the TPU's flash kernel."""
    run, _ = full()
    encoder = cfg.CLIPText(vocab_size=512, width=64, layers=1, num_heads=2, intermediate=256)
    run = replace(
        run,
        data=replace(run.data, image_size=16),
        conditioners=(cfg.TextConditioner(encoder),),
        unet=cfg.UNet(
            block_out_channels=(64,),
            layers_per_block=1,
            attention=(True,),
            num_heads=(2,),
            context_dim=encoder.width,
        ),
        mesh=cfg.Mesh(data=-1, fsdp=4),
    )
    return run, cfg.Autoencoder(block_out_channels=(32, 64), layers_per_block=1, latent_scale=1.0)


def trace_training_step(
    run: cfg.DiffusionRun,
    autoencoder: cfg.Autoencoder,
    mesh: Mesh,
    batch_size: int,
    encoded: bool = False,
    states: bool = False,
    sides: tuple[int, int] | None = None,
) -> jax.stages.Traced:
    """The step of stage two as the training loop compiles it: state donated, all sharded. The batch
    has images, or `encoded` what the first stage made of them, of so many pixels along their
    `sides`, by default the config's; captions, or `states` of these."""
    model = ldm.build(run.model(autoencoder), run.loop.dtype, run.loop.remat)
    optimizer = make_optimizer(run.optim, run.loop.steps)
    frozen = abstract_frozen(model)
    params = jax.eval_shape(partial(ldm.init_params, model, run.loop.seed))
    if run.adapter is not None:
        params = jax.eval_shape(partial(with_adapter, run=run, model=model.config), params)
        model = adapt(model, run.adapter)
    if run.train != ("all",):
        params, frozen["untrained"] = split(params, run)

    def init(params: Any) -> Any:
        return create_state(params, optimizer, run.optim.ema_decay)

    height, width = sides or run.data.sides
    batch = {
        "index": jax.ShapeDtypeStruct((batch_size,), jnp.uint32),
        "inputs": jax.eval_shape(partial(ldm.zero_inputs, model.config, batch_size)),
    }
    if encoded:
        *latents, channels = model.latent_shape_of(height, width)
        moments = (batch_size, *latents, 2 * channels)
        batch["encoded"] = jax.ShapeDtypeStruct(moments, jnp.float16)
    else:
        batch["image"] = jax.ShapeDtypeStruct((batch_size, height, width, 3), jnp.uint8)
    uncond = {name: value[0] for name, value in ldm.zero_inputs(model.config).items()}
    if states:
        text = cfg.find(run.conditioners, cfg.TextConditioner).encoder
        shape = (text.max_length, text.width)
        uncond["caption_states"] = jnp.zeros(shape, jnp.bfloat16)
        rows = jax.ShapeDtypeStruct((batch_size, *shape), jnp.bfloat16)
        batch["inputs"]["caption_states"] = rows
        frozen["untrained"].pop("conditioners")
    state = jax.eval_shape(init, params)
    where = sharding.free_layouts(sharding.state_sharding(mesh, state), mesh)
    step = jax.jit(
        make_diffusion_step(model, optimizer, run, uncond),
        in_shardings=(where, sharding.state_sharding(mesh, frozen), sharding.batch_sharding(mesh)),
        out_shardings=(where, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    # The mesh in context lets attention divide its kernels.
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return step.trace(state, frozen, batch)


def trace_frozen_step(
    run: cfg.DiffusionRun, autoencoder: cfg.Autoencoder, mesh: Mesh, batch_size: int
) -> jax.stages.Traced:
    """The step of the U-Net alone, from latents and captions that were encoded before."""
    run = replace(run, train=("unet",))
    return trace_training_step(run, autoencoder, mesh, batch_size, encoded=True, states=True)


def trace_bucket_step(
    run: cfg.DiffusionRun, autoencoder: cfg.Autoencoder, mesh: Mesh, batch_size: int
) -> jax.stages.Traced:
    """The same for a batch of an aspect bucket."""
    run, (height, width) = replace(run, train=("unet",)), run.data.sides
    sides = height, int(BUCKET * width)
    return trace_training_step(run, autoencoder, mesh, batch_size, True, True, sides)


def trace_lora_step(
    run: cfg.DiffusionRun, autoencoder: cfg.Autoencoder, mesh: Mesh, batch_size: int
) -> jax.stages.Traced:
    """The step of a LoRA of the attention beside the model, as in configs/finetune_lora.py."""
    adapter = cfg.ModuleAdapter(cfg.LoRA(rank=16), modules=("attention",))
    optim = replace(run.optim, ema_decay=None)
    run = replace(run, train=("adapter",), adapter=adapter, optim=optim)
    return trace_training_step(run, autoencoder, mesh, batch_size)


def trace_first_stage(
    run: cfg.DiffusionRun, autoencoder: cfg.Autoencoder, mesh: Mesh, batch_size: int
) -> jax.stages.Traced:
    """The step of stage one with its discriminator, as the training loop compiles it."""
    side = min(run.data.image_size, FIRST_STAGE_SIDE)
    first = cfg.AutoencoderRun(
        replace(run.data, image_size=side, batch_size=batch_size),
        autoencoder,
        cfg.AutoencoderLoss(adversarial=cfg.Adversarial(layers=3 if side >= 64 else 1)),
        loop=run.loop,
    )
    module = build_autoencoder(autoencoder, first.loop.dtype, first.loop.remat)
    losses = AutoencoderLoss(module, first)
    state = jax.eval_shape(lambda: create_autoencoder_state(first, fresh_params(losses)))
    where = sharding.free_layouts(sharding.state_sharding(mesh, state), mesh)
    rows = sharding.batch_sharding(mesh)
    step = jax.jit(
        make_autoencoder_step(module, first),
        in_shardings=(where, None, rows),
        out_shardings=(where, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    batch = {
        "image": jax.ShapeDtypeStruct((batch_size, side, side, 3), jnp.uint8),
        "index": jax.ShapeDtypeStruct((batch_size,), jnp.uint32),
    }
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return step.trace(state, {}, batch)


def trace_sampler(
    run: cfg.DiffusionRun,
    autoencoder: cfg.Autoencoder,
    mesh: Mesh,
    batch_size: int,
    dtype: str | None = None,
) -> jax.stages.Traced:
    """DDIM with classifier-free guidance and the decoder, parameters and images sharded; computed
    in `dtype`, which is the run's if None, as are matrices, and vectors float32, where pictures are
    drawn."""
    dtype = dtype or run.loop.dtype
    model = ldm.build(run.model(autoencoder), dtype)
    path = levels(model.process, SAMPLER_STEPS)

    def sample(params: Any, frozen: Any, inputs: Any, uncond: Any, index: Any) -> Any:
        return ldm.generate(
            model, params, frozen, inputs, uncond, solver=DDIM(), levels=path,
            seed=run.loop.seed, index=index, guidance=Guidance(scale=GUIDANCE),
            shape=model.latent_shape,
        )  # fmt: skip

    params = _matrices_in(dtype, jax.eval_shape(lambda: ldm.init_params(model, run.loop.seed)))
    first_stage = "float32" if dtype == "float16" else dtype
    frozen = _matrices_in(first_stage, abstract_frozen(model))
    whole, rows = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    program = jax.jit(
        sample,
        in_shardings=(sharding.state_sharding(mesh, params), whole, rows, rows, rows),
        out_shardings=rows,
    )
    inputs = jax.eval_shape(partial(ldm.zero_inputs, model.config, batch_size))
    index = jax.ShapeDtypeStruct((batch_size,), jnp.uint32)
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return program.trace(params, frozen, inputs, inputs, index)


def _matrices_in(dtype: str, tree: Any) -> Any:
    """The shapes of `tree`, whose matrices are in `dtype`."""

    def kept(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(leaf.shape, dtype if len(leaf.shape) > 1 else leaf.dtype)

    return jax.tree.map(kept, tree)


def abstract_frozen(model: ldm.LatentDiffusion) -> dict[str, Any]:
    """Shapes of the frozen first stage."""
    side = model.config.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    noise = jax.ShapeDtypeStruct((1, *model.latent_shape), jnp.float32)
    variables = jax.eval_shape(model.autoencoder.init, jax.random.key(0), images, noise)
    scale = jax.ShapeDtypeStruct((), jnp.float32)
    return {"autoencoder": variables["params"], "latent_scale": scale}


def compile_for(traced: jax.stages.Traced, mesh: Mesh, deterministic: bool = False) -> Facts:
    """Compiles for the chips of `mesh`.

    Raises:
        jax.errors.JaxRuntimeError: among others when a chip's memory does not suffice.
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        compiled = traced.lower().compile(options_for(mesh.devices.flat[0], deterministic))
    memory = compiled.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    found, unread = (), ""
    try:
        found = tuple(exchanges(compiled.as_text(), mesh.size))
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        unread = str(error)
    return Facts(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        total=memory.argument_size_in_bytes + memory.temp_size_in_bytes + kept,
        flops=flops.count(traced.jaxpr.jaxpr) / mesh.size,
        exchanges=found,
        unread=unread,
    )


PROGRAMS = {
    "train": (trace_training_step, TRAIN_IMAGES),
    "frozen": (trace_frozen_step, TRAIN_IMAGES),
    "bucket": (trace_bucket_step, TRAIN_IMAGES),
    "lora": (trace_lora_step, TRAIN_IMAGES),
    "sample": (trace_sampler, SAMPLE_IMAGES),
    "first": (trace_first_stage, FIRST_STAGE_IMAGES),
}


def main() -> int:
    """Prints one row for each topology and program; returns 1 if one does not compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true", help="a small model: under a minute")
    parser.add_argument("--topology", nargs="+", default=TOPOLOGIES)
    parser.add_argument("--program", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--fsdp", type=int, help="in place of the config's mesh.fsdp")
    parser.add_argument("--deterministic", action="store_true", help="as loop.deterministic")
    arguments = parser.parse_args()
    run, autoencoder = reduced() if arguments.reduced else full()
    failed = False
    print(f"{'':33}{'--- per chip, GB ---':>32}{'--- per chip':>22}")
    print(f"{'program':8}{'chips':>17}{'images':>8}{'arguments':>11}{'temporary':>11}{'in all':>10}"
          f"{'TFLOP':>9}{'sent GB':>9}{'links':>7}{'beside':>8}{'seconds':>9}  collectives",
          flush=True)  # fmt: skip
    for name in arguments.topology:
        devices = topology(name)
        # On fewer chips than the config is for, parameters are split over as many as there are.
        shards = math.gcd(arguments.fsdp or run.mesh.fsdp, len(devices))
        mesh = sharding.make_mesh(replace(run.mesh, fsdp=shards), devices)
        for program in arguments.program:
            trace, per_chip = PROGRAMS[program]
            images, began = per_chip * mesh.size, time.perf_counter()
            print(f"{program:8}{name:>17}{images:8}", end="", flush=True)
            try:
                facts = compile_for(
                    trace(run, autoencoder, mesh, images), mesh, arguments.deterministic
                )
            except jax.errors.JaxRuntimeError as error:
                print(f"  does not compile: {error}")
                failed = True
                continue
            # What was traced and compiled takes gigabytes itself.
            jax.clear_caches()
            gigabytes = (facts.arguments / 1e9, facts.temporaries / 1e9, facts.total / 1e9)
            print("{:11.3f}{:11.3f}{:10.3f}".format(*gigabytes), end="")
            if facts.unread:
                print(f"{facts.flops / 1e12:9.3f}{'-':>9}{'-':>7}{'-':>8}"
                      f"{time.perf_counter() - began:9.0f}  not read: {facts.unread}",
                      flush=True)  # fmt: skip
                continue
            (sent, beside), (far, far_beside) = facts.sent(), facts.sent(between_slices=True)
            print(f"{facts.flops / 1e12:9.3f}{sent / 1e9:9.3f}"
                  f"{link_share(name, sent, facts.flops):7.1%}{beside:8.0%}"
                  f"{time.perf_counter() - began:9.0f}  ", end="")  # fmt: skip
            if far:
                share = link_share(name, far, facts.flops, between_slices=True)
                print(f"between slices {far / 1e9:.3f} GB, {share:.1%}, {far_beside:.0%} beside; ",
                      end="")  # fmt: skip
            counts = collections.Counter(one.kind for one in facts.exchanges)
            print(", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
