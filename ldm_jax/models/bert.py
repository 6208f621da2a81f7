"""The text encoder of the 1.45B latent diffusion model, named as in diffusers' `LDMBertModel`."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ldm_jax import config as cfg
from ldm_jax.core.sharding import split_batch
from ldm_jax.models.attention import attention
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.layers import Embed, LayerNorm, ModuleList, gelu


class BERTAttention(nn.Module):
    """Self-attention whose heads together may be narrower or wider than its input.

    Without biases on queries, keys and values; every position is seen, padding too.
    """

    heads: int
    head_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        project = partial(nn.Dense, self.heads * self.head_dim, use_bias=False, dtype=self.dtype)
        q, k, v = (
            project(name=name)(x).reshape(*x.shape[:2], self.heads, self.head_dim)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        y = attention(q, k, v).reshape(*x.shape[:2], self.heads * self.head_dim)
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="out_proj")(y)


class BERTLayer(nn.Module):
    """Self-attention and an MLP of four times the width, each normalised before and added."""

    heads: int
    head_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        width = x.shape[-1]
        attend = BERTAttention(self.heads, self.head_dim, self.dtype, name="self_attn")
        x = split_batch(x + attend(LayerNorm(self.dtype, name="self_attn_layer_norm")(x)))
        y = LayerNorm(self.dtype, name="final_layer_norm")(x)
        y = nn.Dense(4 * width, dtype=self.dtype, name="fc1")(y)
        y = gelu(y)
        return split_batch(x + nn.Dense(width, dtype=self.dtype, name="fc2")(y))


class BERTStack(nn.Module):
    """The text model without its outermost level."""

    config: cfg.BERTText
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        config = self.config
        if tokens.shape[1] > config.max_length:
            raise ValueError(
                f"{tokens.shape[1]} tokens; the text encoder takes at most {config.max_length}"
            )
        embed = partial(
            Embed, features=config.width, dtype=self.dtype,
            embedding_init=nn.initializers.normal(0.02),
        )  # fmt: skip
        places = embed(config.max_length, name="embed_positions").first(tokens.shape[1])
        x = embed(config.vocab_size, name="embed_tokens")(tokens) + places[None]
        layer = partial(BERTLayer, config.num_heads, config.head_dim, self.dtype)
        layers = ModuleList((layer,) * config.layers, name="layers")
        for i in range(config.layers):
            x = layers(i, x)
        return LayerNorm(self.dtype, name="layer_norm")(x)


class BERTTextModel(nn.Module):
    """A bidirectional pre-norm transformer (Rombach 2022, appendix E.2.1; after Devlin 2019).

    The context is every token's state after the final norm, of padding too, with which the
    published weights were trained.
    """

    config: cfg.BERTText
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Condition:
        x = BERTStack(self.config, self.dtype, name="model")(tokens)
        return Condition(context=x.astype(jnp.float32))
