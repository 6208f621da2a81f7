"""What it costs to draw with adapters: merged into the weights, or applied from outside.

    python -m benchmarks.adapter_cost                           a small U-Net
    python -m benchmarks.adapter_cost --channels=320 --size=64 --steps=4    as Stable Diffusion 1.5

Five LoRAs of rank 8 on all attention of the U-Net and of the text encoder, with random numbers. A
picture is drawn without them; with their changes merged into the weights once, as `sample.py` does;
and with each applied beside each layer in every step, as in training.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jaxtyping import Array, UInt8

from benchmarks.timing import in_turn, report
from ldm_jax import config as cfg
from ldm_jax import latent_diffusion as ldm
from ldm_jax.adapters.adapted import adapt, put_beside
from ldm_jax.adapters.adapter import Adapter, AdapterUse
from ldm_jax.adapters.fresh import fresh
from ldm_jax.adapters.kind import mapped
from ldm_jax.adapters.merging import merge
from ldm_jax.convert import imported_model
from ldm_jax.sampling.guidance import Guidance
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.solvers import make_solver

STRENGTH = 0.5
Draw = Callable[[], UInt8[Array, "b h w c"]]


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Compares drawing without adapters, with merged ones, and with ones from outside."""

    adapters: int = 5
    rank: int = 8
    size: int = 16
    """Side of the latents."""
    channels: int = 64
    """Of the U-Net's first level; a quarter of those of the last two."""
    steps: int = 10
    batch_size: int = 1
    repeats: int = 5


def model_config(arguments: Arguments) -> cfg.Model:
    """A model of Stable Diffusion's kind."""
    widths = tuple(arguments.channels * times for times in (1, 2, 4, 4))
    text = cfg.CLIPText(vocab_size=1000, width=768 if arguments.channels >= 320 else 128,
                        layers=12 if arguments.channels >= 320 else 4, num_heads=4)  # fmt: skip
    unet = cfg.UNet(
        in_channels=4, out_channels=4, block_out_channels=widths, context_dim=text.width
    )
    stage = cfg.Autoencoder(block_out_channels=(32,) * 4, layers_per_block=1, latent_scale=0.18)
    conditioners = (cfg.TextConditioner(text, tokenizer="clip"),)
    return cfg.Model(stage, unet, conditioners, cfg.Diffusion(), 8 * arguments.size)


def random_use(config: cfg.Model, params: Any, rank: int, seed: int) -> AdapterUse:
    """A LoRA with numbers in it, as if it had been trained."""
    form = cfg.ModuleAdapter(cfg.LoRA(rank=rank), modules=("attention", "text_attention"))
    (text,) = config.conditioners
    made = fresh(form, params, text.name, seed)
    random = np.random.default_rng(seed)
    components = {
        component: {
            path: tuple(mapped(kind, lambda a: _numbers(random, a)) for kind in kinds)
            for path, kinds in modules.items()
        }
        for component, modules in made.components.items()
    }
    return AdapterUse(Adapter(components), STRENGTH, STRENGTH)


def _numbers(random: np.random.Generator, leaf: Any) -> np.ndarray:
    """Such that layers keep the size of what they are given, about."""
    scale = 1 / np.sqrt(np.prod(np.shape(leaf)[:-1], dtype=int))
    if np.ndim(leaf) == 0:
        return np.asarray(leaf, np.float32)
    return (scale * random.standard_normal(np.shape(leaf))).astype(np.float32)


def main(arguments: Arguments) -> None:
    """Prints the times of a drawing, their ratios, the seconds of merging, and how far pictures of
    the two ways are apart."""
    config = model_config(arguments)
    model = ldm.build(config)
    random = np.random.default_rng(0)
    components = jax.tree.map(lambda leaf: _numbers(random, leaf), imported_model.shapes(config))
    bundle = imported_model.make(config, components)
    params, frozen = bundle.params, bundle.frozen
    uses = [random_use(config, params, arguments.rank, i) for i in range(arguments.adapters)]

    seconds = []
    for _ in range(arguments.repeats):
        began = time.perf_counter()
        merged = merge(params, uses)
        seconds.append(time.perf_counter() - began)

    draws = {
        "without": drawing(model, params, frozen, arguments),
        "merged": drawing(model, merged, frozen, arguments),
        "outside": drawing(adapt(model), put_beside(params, uses), frozen, arguments),
    }
    images = {name: np.asarray(draw()).astype(int) for name, draw in draws.items()}
    times = in_turn(draws, arguments.repeats)
    for name in ("merged", "outside"):
        report(f"{arguments}", times, name, "without")
    count = sum(uses[0].adapter.count().values())
    print(f"  merging {len(uses)} adapters of {count} modules: {seconds[0]:.2f} s the first time, "
          f"which compiles, {min(seconds):.2f} s at least")  # fmt: skip
    apart = np.abs(images["merged"] - images["outside"])
    changed = np.abs(images["merged"] - images["without"])
    print(f"  merged and outside are {apart.max()} grey levels apart at most; the adapters change "
          f"{changed.mean():.1f} on average")  # fmt: skip


def drawing(model: ldm.LatentDiffusion, params: Any, frozen: Any, arguments: Arguments) -> Draw:
    """A guided drawing of DDIM's, whole, with its parameters on the device."""
    count, shape = arguments.batch_size, model.latent_shape
    path = levels(model.process, arguments.steps, "trailing", "one")
    rows = np.random.default_rng(1).integers(0, 1000, (2, count, 77), dtype=np.int32)

    @jax.jit
    def program(params: Any, frozen: Any, tokens: Any) -> Array:
        return ldm.generate(
            model, params, frozen, {"caption": tokens[0]}, {"caption": tokens[1]},
            solver=make_solver("ddim"), levels=path, seed=0,
            index=jnp.arange(count, dtype=jnp.uint32), shape=shape, guidance=Guidance(scale=7.5),
        )  # fmt: skip

    placed = jax.device_put((params, frozen, rows))
    return lambda: program(*placed).block_until_ready()


if __name__ == "__main__":
    main(tyro.cli(Arguments))
