"""A classifier of noisy latents: the U-Net's way down, then attention pooling (Dhariwal 2021)."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

from ldm_jax import config as cfg
from ldm_jax.models.attention import attention
from ldm_jax.models.layers import (
    Conv,
    GroupNorm,
    ModuleList,
    TimeEmbedding,
    check_sides,
    timestep_embedding,
)
from ldm_jax.models.unet import EPSILON, DownLevel, Middle


class AttentionPool(nn.Module):
    """The mean of all pixels attends to itself and to them (Radford 2021, section 2.4).

    Every place has a learned position, so pictures have one size. All heads read one projection.
    """

    heads: int
    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
        b, h, w, c = x.shape
        x = x.reshape(b, h * w, c)
        tokens = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1)
        init = nn.initializers.normal(c**-0.5)
        places = self.param("positional_embedding", init, (h * w + 1, c), jnp.float32)
        tokens = tokens + places.astype(self.dtype)[None]

        def project(name: str, tokens: Float[Array, "b l c"]) -> Float[Array, "b l n k"]:
            projected = nn.Dense(c, dtype=self.dtype, name=name)(tokens)
            return projected.reshape(b, -1, self.heads, c // self.heads)

        # Only the mean's own answer is read, so only it asks.
        pooled = attention(
            project("to_q", tokens[:, :1]), project("to_k", tokens), project("to_v", tokens)
        )
        return nn.Dense(self.features, dtype=self.dtype, name="out_proj")(pooled.reshape(b, c))


class Classifier(nn.Module):
    """Logits of each class from noisy latents and their time; parameters named as the U-Net's."""

    config: cfg.Classifier
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Num[Array, " b"],
        dropout: Key[Array, "b"] | None = None,
    ) -> Float[Array, "b k"]:
        """`t` as the U-Net of the same process is told it; logits in float32.

        In training `dropout` has a key for each example.

        Raises:
            ValueError: sides that are no multiples of `config.encoder.side_multiple`.
        """
        encoder, widths = self.config.encoder, self.config.block_out_channels
        check_sides(x, encoder.side_multiple, "the latent")
        embedding = timestep_embedding(t, widths[0]).astype(self.dtype)
        time = TimeEmbedding(4 * widths[0], self.dtype, name="time_embedding")(embedding)
        x = Conv(widths[0], dtype=self.dtype, name="conv_in")(x)
        level = partial(DownLevel, encoder, dtype=self.dtype, remat=self.remat)
        down = ModuleList(tuple(partial(level, i) for i in range(len(widths))), name="down_blocks")
        for i in range(len(widths)):
            x, _ = down(i, x, time, None, dropout)
        x = Middle(encoder, self.dtype, self.remat, name="mid_block")(x, time, None, dropout)
        x = nn.silu(GroupNorm(encoder.norm_num_groups, EPSILON, self.dtype, name="norm_out")(x))
        pool = AttentionPool(
            self.config.num_heads[-1], self.config.num_classes, self.dtype, name="pool"
        )
        return pool(x).astype(jnp.float32)
