"""BERT as sentence encoders have it: the states of all words, and one vector of the whole."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int

from ldm_jax import config as cfg
from ldm_jax.core.sharding import split_batch
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.layers import Embed, LayerNorm
from ldm_jax.models.text import MLP, SelfAttention, TextLayers

EPSILON = 1e-12
TOKEN_TYPES = 2
"""First and second sentence, as BERT was trained; a caption is a first one."""
PAD = 0
"""The number of the token that fills captions up."""


class SentenceEmbeddings(nn.Module):
    """Token plus learned position plus the type of a first sentence, normalised."""

    config: cfg.SentenceBERT
    dtype: DTypeLike

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Float[Array, "b l d"]:
        config = self.config
        if tokens.shape[1] > config.positions:
            raise ValueError(
                f"{tokens.shape[1]} tokens; the text encoder takes at most {config.positions}"
            )
        embed = partial(
            Embed, features=config.width, dtype=self.dtype,
            embedding_init=nn.initializers.normal(0.02),
        )  # fmt: skip
        words = embed(config.vocab_size, name="token_embedding")(tokens)
        types = embed(TOKEN_TYPES, name="token_type_embedding").first(1)
        places = embed(config.positions, name="position_embedding").first(tokens.shape[1])
        return LayerNorm(self.dtype, EPSILON, name="layer_norm")(words + (types + places)[None])


class SentenceLayer(nn.Module):
    """Self-attention and MLP, each added and normalised afterwards; padding is not seen."""

    config: cfg.SentenceBERT
    seen: Bool[Array, "b l"]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        config = self.config
        attend = SelfAttention(config.num_heads, False, False, self.dtype, name="self_attn")
        mlp = MLP(config.intermediate, "gelu", False, self.dtype, name="mlp")
        norm = partial(LayerNorm, self.dtype, EPSILON)
        x = split_batch(norm(name="layer_norm1")(x + attend(x, self.seen)))
        return split_batch(norm(name="layer_norm2")(x + mlp(x)))


class SentenceBERTModel(nn.Module):
    """A bidirectional post-norm transformer (Devlin 2019, arXiv:1810.04805) as sentence encoders
    (Reimers & Gurevych 2019, arXiv:1908.10084) pool it.

    The context is every token's state after the last layer, zero where there is padding, so that
    what stands behind a caption is the same for all. The pooled vector is the mean of a caption's
    states, or the state of its first token.
    """

    config: cfg.SentenceBERT
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: Int[Array, "b l"]) -> Condition:
        config, seen = self.config, tokens != PAD
        x = SentenceEmbeddings(config, self.dtype, name="embeddings")(tokens)
        layer = partial(SentenceLayer, config, seen, self.dtype)
        x = TextLayers(config.layers, layer, name="encoder")(x).astype(jnp.float32)
        x = jnp.where(seen[:, :, None], x, 0)
        count = jnp.maximum(seen.sum(1, keepdims=True), 1).astype(jnp.float32)
        pooled = x[:, 0] if config.pooling == "first" else x.sum(1) / count
        return Condition(context=x, pooled=pooled)
