"""The memory that drawing takes at sizes from 256 to 2048 pixels, whole and in tiles, as the TPU's
compiler plans it, without a TPU.

    python -m benchmarks.picture_sizes [--reduced] [--sizes 256 512] [--topology v5e:2x2]

Stable Diffusion 1.5 in bfloat16 on one chip: an evaluation of the U-Net for one image with
guidance, thus two rows; the decoder and the encoder for one image. Only shapes go in. The whole
table takes an hour on two cores.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.pods import abstract_frozen, compile_for, full, reduced
from benchmarks.topologies import topology
from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.core.sharding import make_mesh, replicated
from ldm_jax.generation.tiles import TiledAutoencoder, TiledUNet

SIZES = (256, 512, 1024, 1536, 2048)
TILE = 512
"""Pixels along a side of a tile."""
GUIDED = 2
"""Rows of the U-Net for one image."""


def programs(
    model: ldm.LatentDiffusion, size: int, tile: int
) -> Iterator[tuple[str, Callable[..., Any], tuple[Any, ...]]]:
    """The programs of one size: name, function, and the shapes of its arguments."""
    params = jax.eval_shape(lambda: ldm.init_params(model, 0))
    frozen, shape = abstract_frozen(model), model.latent_shape_of(size, size)
    inputs = jax.eval_shape(lambda: ldm.zero_inputs(model.config, GUIDED))
    condition = jax.eval_shape(model.condition, params, frozen, inputs)
    rows = jax.ShapeDtypeStruct((GUIDED, *shape), jnp.float32)
    latents = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    pixels = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    t = jax.ShapeDtypeStruct((GUIDED,), jnp.float32)
    tiled = replace(
        model, unet=TiledUNet(model.unet, tile // model.config.autoencoder.factor),
        autoencoder=TiledAutoencoder(model.autoencoder, tile),
    )  # fmt: skip
    for one, how in ((model, "whole"), (tiled, f"tiles of {tile}"))[: 1 + (size > tile)]:
        yield f"U-Net, {how}", one.network, (params, rows, t, condition)
        yield f"decoder, {how}", one.decode, (frozen, latents)
        yield f"encoder, {how}", one.encode, (frozen, pixels, latents)


def main() -> int:
    """Prints one row for each size and program; returns 1 if one does not fit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reduced", action="store_true", help="a small model, in tiles of 64")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--topology", default="v5e:2x2", help="one chip of it is used")
    arguments = parser.parse_args()
    run, autoencoder = reduced() if arguments.reduced else full()
    model = ldm.build(run.model(autoencoder), run.loop.dtype)
    mesh, failed = make_mesh(cfg.Mesh(), topology(arguments.topology)[:1]), False
    print("| size | program | arguments | temporaries | compile time |\n|---|---|---|---|---|")
    for size in arguments.sizes:
        for name, function, shapes in programs(model, size, 64 if arguments.reduced else TILE):
            start = time.perf_counter()
            program = jax.jit(function, in_shardings=replicated(mesh))
            try:
                with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                    facts = compile_for(program.trace(*shapes), mesh)
                told = f"{facts.arguments / 1e9:.3f} GB | {facts.temporaries / 1e9:.3f} GB"
            except jax.errors.JaxRuntimeError as error:
                told, failed = f"does not fit: {str(error).splitlines()[0][:150]} |", True
            jax.clear_caches()
            print(f"| {size} | {name} | {told} | {time.perf_counter() - start:.0f} s |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
