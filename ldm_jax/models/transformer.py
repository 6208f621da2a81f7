"""Attention layers and the spatial transformer of the U-Net, named as in diffusers."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ldm_jax.core.sharding import split_batch
from ldm_jax.models.attention import attention
from ldm_jax.models.layers import Conv, GroupNorm, LayerNorm, ModuleList, gelu, lecun, zeros


class Attention(nn.Module):
    """Multi-head attention from tokens to `context`, or to themselves without one.

    With `norm_groups` it is the older block: group normalisation before and a residual around.
    """

    heads: int
    dtype: DTypeLike = jnp.float32
    qkv_bias: bool = False
    norm_groups: int | None = None
    norm_epsilon: float = 1e-5
    zero_close: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l c"], context: Float[Array, "b m e"] | None = None
    ) -> Float[Array, "b l c"]:
        width, residual = x.shape[-1], x
        if self.norm_groups is not None:
            norm = GroupNorm(self.norm_groups, self.norm_epsilon, self.dtype, name="group_norm")
            x = norm(x)
        context = x if context is None else context
        project = partial(nn.Dense, width, use_bias=self.qkv_bias, dtype=self.dtype)
        q, k, v = (
            project(name=name)(y).reshape(*y.shape[:2], self.heads, -1)
            for name, y in (("to_q", x), ("to_k", context), ("to_v", context))
        )
        x = attention(q, k, v).reshape(*x.shape[:2], width)
        init = zeros if self.zero_close else lecun
        close = partial(nn.Dense, width, dtype=self.dtype, kernel_init=init)
        x = ModuleList((close,), name="to_out")(0, x)
        return x if self.norm_groups is None else split_batch(residual + x)


class PixelAttention(Attention):
    """`Attention` over the pixels of an image, called as a spatial transformer is."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], context: None = None) -> Array:
        b, h, w, c = x.shape
        return super().__call__(x.reshape(b, h * w, c)).reshape(b, h, w, c)


class GEGLU(nn.Module):
    """value · gelu(gate) with the exact GELU (Shazeer 2020, eq. 6); the value comes first."""

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b l c"]) -> Float[Array, "b l d"]:
        x = nn.Dense(2 * self.width, dtype=self.dtype, name="proj")(x)
        # Gradients recompute it: one array is kept instead of three.
        return jax.checkpoint(_gated)(x)


def _gated(x: Float[Array, "b l e"]) -> Float[Array, "b l d"]:
    value, gate = jnp.split(x, 2, axis=-1)
    return value * gelu(gate)


class FeedForward(nn.Module):
    """GEGLU at four times the width, and back."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b l c"]) -> Float[Array, "b l c"]:
        width = x.shape[-1]
        up = partial(GEGLU, 4 * width, self.dtype)
        down = partial(nn.Dense, width, dtype=self.dtype)
        # Number 1 is torch's dropout.
        net = ModuleList((up, None, down), name="net")
        return net(2, net(0, x))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and feed-forward, each normalised before and added.

    With `only_cross` the first attends to the context as well.
    """

    heads: int
    only_cross: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l c"], context: Float[Array, "b m e"] | None
    ) -> Float[Array, "b l c"]:
        x = x + Attention(self.heads, self.dtype, name="attn1")(
            LayerNorm(self.dtype, name="norm1")(x), context if self.only_cross else None
        )
        x = split_batch(x)
        x = x + Attention(self.heads, self.dtype, name="attn2")(
            LayerNorm(self.dtype, name="norm2")(x), context
        )
        x = split_batch(x)
        x = x + FeedForward(self.dtype, name="ff")(LayerNorm(self.dtype, name="norm3")(x))
        return split_batch(x)


class SpatialTransformer(nn.Module):
    """Transformer blocks over the pixels, between two projections, with a residual around.

    The projections are 1x1 convolutions (SD 1) or, if `linear`, dense layers (SD 2); the last
    starts at zero.
    """

    heads: int
    layers: int
    groups: int
    linear: bool
    only_cross: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], context: Float[Array, "b m e"] | None
    ) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        if self.linear:
            project = partial(nn.Dense, c, dtype=self.dtype)
        else:
            project = partial(Conv, c, kernel_size=1, padding=(0, 0), dtype=self.dtype)
        y = GroupNorm(self.groups, 1e-6, self.dtype, name="norm")(x)
        y = project(name="proj_in")(y).reshape(b, h * w, c)
        block = partial(TransformerBlock, self.heads, self.only_cross, self.dtype)
        blocks = ModuleList((block,) * self.layers, name="transformer_blocks")
        for i in range(self.layers):
            y = blocks(i, y, context)
        return split_batch(x + project(name="proj_out", kernel_init=zeros)(y.reshape(b, h, w, c)))
