"""DINOv2's image encoder (Oquab 2023, arXiv:2304.07193)."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.core.cubic import cubic
from ldm_jax.core.sharding import split_batch
from ldm_jax.models.layers import LayerNorm
from ldm_jax.models.text import MLP, SelfAttention, TextLayers
from ldm_jax.models.vision_transformer import PatchEmbedding, with_class_token

EPSILON = 1e-6
_CUBIC = -0.75
"""PyTorch's a of the cubic kernel."""


class LayerScale(nn.Module):
    """A learned factor for each channel (Touvron 2021, arXiv:2103.17239)."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        ones = nn.initializers.ones_init()
        factor = self.param("lambda1", ones, (x.shape[-1],), jnp.float32)
        return x * factor.astype(self.dtype)[None, None]


class DINOv2Layer(nn.Module):
    """Self-attention and MLP, each normalised before, scaled and added."""

    config: cfg.DINOv2
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        config = self.config
        norm = partial(LayerNorm, self.dtype, EPSILON)
        attend = SelfAttention(config.num_heads, False, False, self.dtype, name="attention")
        mlp = MLP(config.intermediate, "gelu", False, self.dtype, name="mlp")
        y = attend(norm(name="norm1")(x))
        x = split_batch(x + LayerScale(self.dtype, name="layer_scale1")(y))
        y = mlp(norm(name="norm2")(x))
        return split_batch(x + LayerScale(self.dtype, name="layer_scale2")(y))


class DINOv2PatchEmbeddings(nn.Module):
    """The patches, as the level `projection`."""

    config: cfg.DINOv2
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b l d"]:
        config = self.config
        embed = PatchEmbedding(config.width, config.patch_size, True, self.dtype, name="projection")
        return embed(pixels)


class DINOv2Embeddings(nn.Module):
    """The class token and the patches, each with its position's embedding."""

    config: cfg.DINOv2
    position_offset: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b l d"]:
        config, init = self.config, nn.initializers.normal(0.02)
        side = config.image_size // config.patch_size
        token = self.param("cls_token", init, (1, 1, config.width), jnp.float32)
        shape = (1, side * side + 1, config.width)
        places = self.param("position_embeddings", init, shape, jnp.float32)
        patches = DINOv2PatchEmbeddings(config, self.dtype, name="patch_embeddings")(pixels)
        sides = tuple(pixels.shape[axis] // config.patch_size for axis in (1, 2))
        table = interpolated_positions(places[0, 1:], side, sides, self.position_offset)
        places = jnp.concatenate([places[0, :1], table])
        return with_class_token(token[0, 0], patches) + places.astype(self.dtype)[None]


class DINOv2(nn.Module):
    """The class token's state after the last norm, of pixels that are normalised as ImageNet's are.

    Images may have any sides that are multiples of the patch's. The embeddings of positions are
    then interpolated, by transformers with `position_offset` 0. The authors' own code, with which
    Fréchet distances in these features are measured, takes 0.1, which shifts them a little.
    """

    config: cfg.DINOv2
    dtype: DTypeLike = jnp.float32
    position_offset: float = 0.0

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        config = self.config
        embed = DINOv2Embeddings(config, self.position_offset, self.dtype, name="embeddings")
        layer = partial(DINOv2Layer, config, self.dtype)
        x = TextLayers(config.layers, layer, name="encoder")(embed(pixels))
        return LayerNorm(self.dtype, EPSILON, name="layernorm")(x)[:, 0].astype(jnp.float32)


def interpolated_positions(
    table: Float[Array, "l d"], side: int, sides: tuple[int, int], offset: float = 0.0
) -> Float[Array, "m d"]:
    """The embeddings of the positions of a square grid, row by row, on a grid of other `sides`:
    PyTorch's bicubic interpolation without antialiasing, whose scale is (new + offset) / old."""
    if sides == (side, side):
        return table
    grid = table.reshape(side, side, -1)
    down, across = (jnp.asarray(_cubic_weights(side, new, offset)) for new in sides)
    exact = jax.lax.Precision.HIGHEST
    grid = jnp.einsum("hwd,kw->hkd", grid, across, precision=exact)
    grid = jnp.einsum("hwd,kh->kwd", grid, down, precision=exact)
    return grid.reshape(-1, table.shape[1])


def _cubic_weights(old: int, new: int, offset: float) -> Float[np.ndarray, "new old"]:
    """What each new place of an axis is made of, whose ends are repeated beyond it."""
    at = (np.arange(new) + 0.5) * (old / (new + offset)) - 0.5
    before = np.floor(at).astype(np.int64)
    weights = np.zeros((new, old), np.float32)
    for tap in range(-1, 3):
        value = cubic(at - before - tap, _CUBIC)
        np.add.at(weights, (np.arange(new), np.clip(before + tap, 0, old - 1)), value)
    return weights
