"""One model of VQGAN's second stage as a frozen bundle: codes of images, their probabilities, and
drawing (Esser 2021, section 3.2).

The bundle holds modules, never parameters; those are arguments:

    params = {"transformer"}      what stage two trains
    frozen = {"autoencoder"}      what stage one left

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
from ldm_jax.models.pixels import to_images, to_pixels
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

    def codes(self, frozen: Params, images: UInt8[Array, "b h w c"]) -> Int[Array, "b zh zw"]:
        """The codes of images."""
        variables = {"params": frozen["autoencoder"]}
        found = self.autoencoder.apply(variables, to_pixels(images), method="encode").mode
        return self.autoencoder.apply(variables, found, method=lambda m, z: m.quantize(z).indices)

    def images(self, frozen: Params, codes: Int[Array, "b zh zw"]) -> UInt8[Array, "b h w c"]:
        """The images of codes."""
        variables = {"params": frozen["autoencoder"]}
        return to_images(self.autoencoder.apply(variables, codes, method="decode_codes"))

    def prefix(self, inputs: Inputs, rows: int) -> Int[Array, "b p"]:
        """The tokens before the codes: the `label` of each row, or the start of a sequence."""
        if self.config.condition is None:
            return jnp.full((rows, 1), cfg.START, jnp.int32)
        return inputs["label"].astype(jnp.int32)[:, None]

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
        drawn with it. In a larger `grid` each code is drawn in a window, as `windows` says.

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
        corners = windows(grid, size)

        def step(codes: Array, where: tuple[Array, Array]) -> tuple[Array, None]:
            place, corner = where
            y, x = place // grid[1], place % grid[1]
            window = jax.lax.dynamic_slice(codes, (0, corner[0], corner[1]), (rows, *size))
            # A code depends on none that comes after it, so these may be anything.
            logits = self.logits(params, prefix, window.reshape(rows, -1))
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


def build(config: cfg.CodeModel, dtype: DTypeLike = "float32", remat: bool = False) -> CodeModel:
    """The model that `config` describes; its networks compute in `dtype`."""
    return CodeModel(
        config, build_autoencoder(config.autoencoder, dtype),
        build_code_transformer(config.transformer, dtype, remat),
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
