"""One model of VQGAN's second stage as a frozen bundle: codes of images, their probabilities, and
drawing (Esser 2021, section 3.2).

The bundle holds modules, never parameters; those are arguments:

    params = {"transformer"}      what stage two trains
    frozen = {"autoencoder"}      what stage one left; with "condition_stage", the first stage of
                                  conditions, where these are made of codes

A sequence is the tokens of the condition, then the codes row by row. Codes are predicted, tokens of
the condition are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, UInt8, UInt32

from ldm_jax import config as cfg
from ldm_jax.core import rngs
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.build import build_autoencoder, build_code_transformer
from ldm_jax.models.code_transformer import CodeTransformer, empty_caches
from ldm_jax.models.conditioners import Inputs
from ldm_jax.models.pixels import one_hot, to_images, to_pixels
from ldm_jax.sampling.code_choice import choose

Params = Mapping[str, Any]


class Choice(NamedTuple):
    """`cfg.CodeSampling` as numbers that a compiled program takes."""

    temperature: Float[Array, ""]
    top_k: Int[Array, ""]
    top_p: Float[Array, ""]


@dataclass(frozen=True)
class CodeModel:
    """Modules of one model; every method is a pure function of its arguments."""

    config: cfg.CodeModel
    autoencoder: Autoencoder
    transformer: CodeTransformer
    condition_stage: Autoencoder | None = None

    def codes(self, frozen: Params, images: UInt8[Array, "b h w c"]) -> Int[Array, "b zh zw"]:
        """The codes of images."""
        return _codes(self.autoencoder, frozen["autoencoder"], to_pixels(images))

    def images(self, frozen: Params, codes: Int[Array, "b zh zw"]) -> UInt8[Array, "b h w c"]:
        """The images of codes."""
        variables = {"params": frozen["autoencoder"]}
        return to_images(self.autoencoder.apply(variables, codes, method="decode_codes"))

    def prefix(self, frozen: Params, inputs: Inputs, rows: int) -> Int[Array, "b p"]:
        """The tokens before the codes: of each row the `label`, the codes of its `class_map` or
        its `depth` [-1, 1], its `coordinates`, or the start of a sequence."""
        match self.config.condition:
            case cfg.ClassPrefix():
                return inputs["label"].astype(jnp.int32)[:, None]
            case cfg.CoordinatePrefix():
                return inputs["coordinates"].reshape(rows, -1)
            case cfg.ClassMapPrefix(maps=maps):
                pixels = one_hot(inputs["class_map"], maps.num_classes)
            case cfg.DepthPrefix():
                pixels = inputs["depth"][..., None]
            case None:
                return jnp.full((rows, 1), cfg.START, jnp.int32)
        codes = _codes(self.condition_stage, frozen["condition_stage"], pixels)
        return codes.reshape(rows, -1)

    def logits(
        self,
        params: Params,
        prefix: Int[Array, "b p"],
        codes: Int[Array, "b n"],
        dropout: Key[Array, "b"] | None = None,
    ) -> Float[Array, "b n v"]:
        """The logits of each code, given the prefix and the codes before it."""
        tokens = jnp.concatenate([prefix, codes[:, :-1]], axis=1)
        variables = {"params": params["transformer"]}
        return self.transformer.apply(variables, tokens, dropout, since=prefix.shape[1] - 1)

    def nats(
        self,
        params: Params,
        prefix: Int[Array, "b p"],
        codes: Int[Array, "b n"],
        seen: Int[Array, "b n"] | None = None,
        dropout: Key[Array, "b"] | None = None,
    ) -> Float[Array, "b n"]:
        """-log p of each code. In training the transformer may see others than these: `seen`."""
        logits = self.logits(params, prefix, codes if seen is None else seen, dropout)
        return optax.softmax_cross_entropy_with_integer_labels(logits, codes)

    def draw(
        self,
        params: Params,
        prefix: Int[Array, "b p"],
        seed: UInt32[Array, ""] | int,
        number: UInt32[Array, "b"],
        choice: Choice,
        grid: tuple[int, int] | None = None,
    ) -> Int[Array, "b zh zw"]:
        """Codes drawn one after the other, by default as many as training images have.

        Picture `number` is a function of the seed, its number and its condition, whatever else is
        drawn with it. In a larger `grid` each code is drawn in a window, as `windows` says; a
        condition that has a token for each code then has them of the whole grid.

        Raises:
            ValueError: a side of `grid` is smaller than that of training images.
        """
        height, width = self.config.grid if grid is None else grid
        keys = rngs.example_keys(rngs.stream(seed, "codes"), number)
        pick = partial(self._pick, keys, choice)
        if (height, width) == self.config.grid:
            codes = self._draw_all(params, prefix, pick)
        else:
            codes = self._draw_in_windows(params, prefix, pick, (height, width))
        return codes.reshape(-1, height, width)

    def _pick(
        self, keys: Key[Array, "b"], choice: Choice, logits: Float[Array, "b v"], place: Array
    ) -> Int[Array, "b"]:
        """The code at a place of the raster; tokens that are no codes are never drawn."""
        codes = logits[:, : self.config.autoencoder.codes]
        return choose(codes, rngs.at_step(keys, place), *choice)

    def _draw_all(self, params: Params, prefix: Int[Array, "b p"], pick: Any) -> Array:
        """All codes of the trained size; keys and values of those before are kept."""
        before, count = prefix.shape[1], self.config.grid[0] * self.config.grid[1]
        variables = {"params": params["transformer"]}
        extend = partial(self.transformer.apply, variables, method="extend")
        caches = empty_caches(
            self.config.transformer, prefix.shape[0], before + count - 1, self.transformer.dtype
        )
        logits, caches = extend(prefix, caches, 0)
        first = pick(logits, jnp.uint32(0))

        def step(carry: Any, place: Array) -> tuple[Any, Array]:
            code, caches = carry
            logits, caches = extend(code[:, None], caches, before + place - 1)
            code = pick(logits, place.astype(jnp.uint32))
            return (code, caches), code

        _, others = jax.lax.scan(step, (first, caches), jnp.arange(1, count))
        return jnp.concatenate([first[None], others]).swapaxes(0, 1)

    def _draw_in_windows(
        self, params: Params, prefix: Int[Array, "b p"], pick: Any, grid: tuple[int, int]
    ) -> Array:
        """All codes of a larger size, row by row, each from the window around it."""
        size, rows = self.config.grid, prefix.shape[0]
        corners, spatial = windows(grid, size), cfg.is_spatial(self.config.condition)

        def step(codes: Array, where: tuple[Array, Array]) -> tuple[Array, None]:
            place, corner = where
            y, x = place // grid[1], place % grid[1]

            def within_window(raster: Array) -> Array:
                found = jax.lax.dynamic_slice(raster, (0, corner[0], corner[1]), (rows, *size))
                return found.reshape(rows, -1)

            before = within_window(prefix.reshape(rows, *grid)) if spatial else prefix
            # A code depends on none that comes after it, so these may be anything.
            logits = self.logits(params, before, within_window(codes))
            within = (y - corner[0]) * size[1] + x - corner[1]
            logits = jax.lax.dynamic_slice_in_dim(logits, within, 1, axis=1)[:, 0]
            code = pick(logits, place.astype(jnp.uint32))
            return jax.lax.dynamic_update_slice(codes, code[:, None, None], (0, y, x)), None

        codes = jnp.zeros((rows, *grid), jnp.int32)
        places = jnp.arange(grid[0] * grid[1])
        return jax.lax.scan(step, codes, (places, jnp.asarray(corners)))[0]


def windows(grid: tuple[int, int], size: tuple[int, int]) -> Int[np.ndarray, "n 2"]:
    """Top and left of the window in which each code of a larger raster is drawn.

    The code is in the middle of a window of the trained `size`, rounded down, where the raster goes
    on that far; near its borders the window stays inside (Esser 2021, section 3.2: sliding
    attention).

    Raises:
        ValueError: a side of `grid` is smaller than that of the window.
    """
    if grid[0] < size[0] or grid[1] < size[1]:
        raise ValueError(
            f"{grid[0]} x {grid[1]} codes are asked for; the transformer was trained on "
            f"{size[0]} x {size[1]}, and draws no fewer along a side"
        )
    tops, lefts = (
        np.clip(np.arange(n) - side // 2, 0, n - side) for n, side in zip(grid, size, strict=True)
    )
    corners = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1)
    return corners.reshape(-1, 2).astype(np.int32)


def _codes(
    module: Autoencoder, params: Params, pixels: Float[Array, "b h w c"]
) -> Int[Array, "b zh zw"]:
    """The codes that a first stage finds in its pixels."""
    variables = {"params": params}
    found = module.apply(variables, pixels, method="encode").mode
    return module.apply(variables, found, method=lambda m, z: m.quantize(z).indices)


def build(config: cfg.CodeModel, dtype: DTypeLike = "float32", remat: bool = False) -> CodeModel:
    """The model that `config` describes; its networks compute in `dtype`."""
    stage = config.condition_stage
    return CodeModel(
        config, build_autoencoder(config.autoencoder, dtype),
        build_code_transformer(config.transformer, dtype, remat),
        None if stage is None else build_autoencoder(stage, dtype),
    )  # fmt: skip


def init_params(model: CodeModel, seed: int) -> dict[str, Any]:
    """Fresh parameters of what stage two trains."""
    key = rngs.stream(seed, "init/transformer")
    tokens = jnp.zeros((1, 1), jnp.int32)
    return {"transformer": model.transformer.init(key, tokens)["params"]}


def choice_of(sampling: cfg.CodeSampling, model: cfg.CodeModel) -> Choice:
    """The numbers of `sampling`."""
    top_k = model.autoencoder.codes if sampling.top_k is None else sampling.top_k
    return Choice(jnp.float32(sampling.temperature), jnp.int32(top_k), jnp.float32(sampling.top_p))
