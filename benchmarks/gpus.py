"""Compiles Stable Diffusion 1.5's programs for CUDA GPUs, without any, and says what the compiler
made of them:

    python -m benchmarks.gpus [--reduced] [--topology h100:1 a100:8] [--program latents sample]
        [--images 8 16]

Of each program: memory; the largest batch for the GPU's memory, by the line through the sizes that
were compiled; how many attentions are cuDNN's flash kernels and how many are plain products; how
many convolutions, and in which order their arrays lie; the bytes that nothing but transposes and
copies write, as a share of all that is written; how often GroupNorms read a large array to sum it
up, and to write another, and the largest array in float32 that they write; the bytes that GPUs send
each other; operations whose sums have no fixed order. Needs the extra `gpus`. A program of full
size takes minutes.
"""

import argparse
import collections
import math
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from benchmarks import pods
from benchmarks.compiled import Exchange, Operation, exchanges, operations
from benchmarks.topologies import attention_of, options_for, topology
from ldm_jax import config as cfg
from ldm_jax.core import sharding
from ldm_jax.models.build import build_autoencoder

MEMORY = 80e9
"""Bytes of a GPU."""
KEPT = 0.92
"""The share of them that JAX may use."""
PLAIN = re.compile(r"\.\.\.ld,\.\.\.md->\.\.\.lm")
"""The product of queries and keys where attention is no kernel, as `models.attention` writes it."""
NORM = re.compile(r"resnets/.*norm\d|attentions/(?!.*transformer_blocks).*norm|conv_norm_out")
"""Where GroupNorms are."""
LARGE = 1e6
"""Bytes of an array that holds more than numbers of channels."""
UNORDERED = {"scatter", "select-and-scatter"}


@dataclass(frozen=True)
class Compiled:
    """What the compiler says of one program on one GPU."""

    seconds: float
    arguments: int
    temporaries: int
    operations: tuple[Operation, ...]
    exchanges: tuple[Exchange, ...]

    @property
    def total(self) -> int:
        """Bytes at its fullest."""
        return self.arguments + self.temporaries

    def count(self, part: str) -> int:
        """How often operations run whose kinds have `part` in them."""
        return sum(o.times for o in self.operations if part in o.kind)

    def written(self, chosen: Callable[[Operation], bool] = lambda _: True) -> int:
        """Bytes that some operations write."""
        return sum(o.times * o.bytes for o in self.operations if chosen(o))


def trace_encoder(
    run: cfg.DiffusionRun, autoencoder: cfg.Autoencoder, mesh: Mesh, batch_size: int
) -> jax.stages.Traced:
    """Images to the moments of their latents."""
    side = run.data.image_size
    return _trace_first_stage(run, autoencoder, mesh, (batch_size, side, side, 3), "encode")


def trace_decoder(
    run: cfg.DiffusionRun, autoencoder: cfg.Autoencoder, mesh: Mesh, batch_size: int, times: int = 1
) -> jax.stages.Traced:
    """Latents to images, whose sides are `times` those of training."""
    side = times * run.data.image_size // autoencoder.factor
    shape = (batch_size, side, side, autoencoder.latent_channels)
    return _trace_first_stage(run, autoencoder, mesh, shape, "decode")


def _trace_first_stage(
    run: cfg.DiffusionRun,
    autoencoder: cfg.Autoencoder,
    mesh: Mesh,
    shape: tuple[int, ...],
    method: str,
) -> jax.stages.Traced:
    module = build_autoencoder(autoencoder, run.loop.dtype)
    side = run.data.image_size
    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    params = jax.eval_shape(module.init, jax.random.key(0), images)["params"]
    rows = sharding.batch_sharding(mesh)
    apply = jax.jit(
        lambda params, x: module.apply({"params": params}, x, method=method),
        in_shardings=(sharding.replicated(mesh), rows),
        out_shardings=rows,
    )
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return apply.trace(params, jax.ShapeDtypeStruct(shape, jnp.float32))


def _changed(trace: Callable, loop: dict | None = None, **changes: object) -> Callable:
    """`trace` of a run with some settings changed."""

    def traced(run: cfg.DiffusionRun, *given: object) -> jax.stages.Traced:
        return trace(replace(run, loop=replace(run.loop, **(loop or {})), **changes), *given)

    return traced


_latents = partial(pods.trace_training_step, encoded=True)
PROGRAMS: dict[str, tuple[Callable, tuple[int, ...]]] = {
    "pixels": (pods.trace_training_step, (4, 8)),
    "pixels, no remat": (_changed(pods.trace_training_step, {"remat": False}), (4, 8)),
    "pixels, frozen text": (_changed(pods.trace_training_step, train=("unet",)), (8, 16)),
    "latents": (_latents, (8, 16)),
    "latents, no remat": (_changed(_latents, {"remat": False}), (4, 8)),
    "latents, frozen text": (_changed(_latents, train=("unet",)), (8, 16)),
    "latents and text states": (pods.trace_frozen_step, (8, 16)),
    "lora": (pods.trace_lora_step, (4, 8)),
    "sample": (pods.trace_sampler, (1, 8)),
    "sample, float16": (partial(pods.trace_sampler, dtype="float16"), (1, 8)),
    "encode": (trace_encoder, (1, 8)),
    "decode": (trace_decoder, (1, 8)),
    "decode, twice the side": (partial(trace_decoder, times=2), (1, 2)),
    "first stage": (pods.trace_first_stage, (2, 4)),
}
"""What is compiled, and for how many images of a GPU."""


def compile_for(traced: jax.stages.Traced, mesh: Mesh, deterministic: bool) -> Compiled:
    """Compiles for the GPUs of `mesh`.

    Raises:
        jax.errors.JaxRuntimeError: it cannot be compiled.
    """
    began = time.perf_counter()
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        compiled = traced.lower().compile(options_for(mesh.devices.flat[0], deterministic))
    memory = compiled.memory_analysis()
    kept = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Compiled(
        seconds=time.perf_counter() - began,
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes + kept,
        operations=tuple(operations(compiled.as_text())),
        exchanges=tuple(exchanges(compiled.as_text(), mesh.size)),
    )


def largest(sizes: dict[int, Compiled]) -> int | None:
    """Images for which memory suffices, by the line through the least and the most that were
    compiled; None of one size alone."""
    if len(sizes) < 2:
        return None
    (few, small), *_, (many, large) = sorted((n, c.total) for n, c in sizes.items())
    each = (large - small) / (many - few)
    return math.floor((KEPT * MEMORY - small) / each + few)


def described(found: Compiled) -> str:
    """What operations there are, in words."""
    flash = found.count("fmha")
    plain = sum(o.times for o in found.operations if PLAIN.search(o.source))
    layouts = collections.Counter()
    for operation in found.operations:
        if operation.layout:
            layouts[operation.layout] += operation.times
    moved = found.written(lambda o: o.moves)
    sent = sum(one.sent for one in found.exchanges)
    beside = sum(one.sent for one in found.exchanges if one.beside)
    unordered = sum(o.times for o in found.operations if o.inner & UNORDERED and not o.ordered)
    norms = [o for o in found.operations if any(map(NORM.search, o.parts)) and o.read > LARGE]
    summing = sum(o.times for o in norms if "reduce" in o.inner)
    writing = sum(o.times for o in norms if "reduce" not in o.inner)
    wide = max((o.wide for o in norms), default=0)
    words = [
        f"attention {flash} flash, {plain} plain",
        "convolutions " + (", ".join(f"{n} {kind}" for kind, n in layouts.most_common()) or "none"),
        f"moved {moved / 1e9:.3f} of {found.written() / 1e9:.3f} GB written "
        f"({moved / found.written():.1%})",
        f"GroupNorms sum {summing} and write {writing} large arrays, float32 of {wide / 1e6:.1f} MB"
        " at most"
        if norms
        else "",
        f"sent {sent / 1e9:.3f} GB, {beside / sent:.0%} beside other work" if sent else "",
        f"{unordered} sums in no fixed order" if unordered else "",
    ]
    return "; ".join(filter(None, words))


def main() -> int:
    """Prints a row for each topology, program and size; returns 1 if one does not compile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true", help="a small model: a minute a program")
    parser.add_argument("--topology", nargs="+", default=["h100:1"])
    parser.add_argument("--program", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--images", nargs="+", type=int, help="of one GPU")
    parser.add_argument("--deterministic", action="store_true", help="as loop.deterministic")
    arguments = parser.parse_args()
    run, autoencoder = pods.reduced() if arguments.reduced else pods.full()
    failed = False
    for name in arguments.topology:
        devices = topology(name)
        shards = math.gcd(run.mesh.fsdp, len(devices))
        mesh = sharding.make_mesh(replace(run.mesh, fsdp=shards), devices)
        for program in arguments.program:
            trace, usual = PROGRAMS[program]
            sizes: dict[int, Compiled] = {}
            for images in arguments.images or usual:
                try:
                    with attention_of(name.partition(":")[0]):
                        traced = trace(run, autoencoder, mesh, images * mesh.size)
                        sizes[images] = found = compile_for(traced, mesh, arguments.deterministic)
                except jax.errors.JaxRuntimeError as error:
                    print(f"{name} {program}, {images} images: does not compile: {error}")
                    failed = True
                    continue
                jax.clear_caches()
                print(f"{name} {program}, {images} images: arguments {found.arguments / 1e9:.2f}, "
                      f"temporaries {found.temporaries / 1e9:.2f} GB, compiled in "
                      f"{found.seconds:.0f} s", flush=True)  # fmt: skip
            if sizes:
                print(f"  {described(sizes[max(sizes)])}")
                if (fits := largest(sizes)) is not None:
                    print(f"  up to {fits} images in {MEMORY / 1e9:.0f} GB", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
