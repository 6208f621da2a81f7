"""A transformer over the codes of images (Esser 2021, section 3.2; the network of Radford 2019).

Parameters are named as in the published checkpoints of VQGAN's second stage: `tok_emb`, `pos_emb`,
`blocks/N/attn/key`, `blocks/N/mlp/0`, `ln_f`, `head`.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key

from ldm_jax import config as cfg
from ldm_jax.core.sharding import split_batch
from ldm_jax.models.attention import attention
from ldm_jax.models.layers import Dropout, Embed, LayerNorm, ModuleList, gelu, zeros

normal = nn.initializers.normal(0.02)
Start = Int[Array, ""] | int
"""The position of the first of some tokens in their sequence."""


class Cache(NamedTuple):
    """Keys and values of one layer at all positions; those not yet reached are zeros."""

    keys: Float[Array, "b m n d"]
    values: Float[Array, "b m n d"]

    def put(self, keys: Array, values: Array, start: Start) -> "Cache":
        """With the keys and values of the positions from `start` on."""
        update = partial(jax.lax.dynamic_update_slice_in_dim, start_index=start, axis=1)
        return Cache(update(self.keys, keys), update(self.values, values))


def visible(
    start: Start, queries: int, keys: int, n_unmasked: int
) -> Bool[Array, "{queries} {keys}"]:
    """Which keys each of the queries from position `start` on sees: those up to its own position,
    and of the first `n_unmasked` each other."""
    rows = start + jnp.arange(queries)[:, None]
    columns = jnp.arange(keys)[None]
    return (columns <= rows) | ((rows < n_unmasked) & (columns < n_unmasked))


class CodeAttention(nn.Module):
    """Multi-head self-attention to the tokens before, with biases everywhere."""

    config: cfg.CodeTransformer
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l c"],
        dropout: Key[Array, "b"] | None,
        cache: Cache | None,
        start: Start,
    ) -> tuple[Float[Array, "b l c"], Cache | None]:
        config, width = self.config, x.shape[-1]
        dense = partial(nn.Dense, width, dtype=self.dtype, kernel_init=normal)
        key, query, value = (
            dense(name=name)(x).reshape(*x.shape[:2], config.num_heads, -1)
            for name in ("key", "query", "value")
        )
        if cache is not None:
            cache = cache.put(key, value, start)
            key, value = cache
        dropped = dropout is not None and config.attention_dropout > 0
        if cache is None and not config.n_unmasked and not dropped:
            y = attention(query, key, value, causal=True)
        else:
            seen = visible(start, x.shape[1], key.shape[1], config.n_unmasked)
            y = self._attend(query, key, value, seen, dropout)
        return dense(name="proj")(y.reshape(x.shape)), cache

    def _attend(
        self,
        query: Float[Array, "b l n d"],
        key: Float[Array, "b m n d"],
        value: Float[Array, "b m n d"],
        seen: Bool[Array, "l m"],
        dropout: Key[Array, "b"] | None,
    ) -> Float[Array, "b l n d"]:
        scores = jnp.einsum("blnd,bmnd->bnlm", query, key, preferred_element_type=jnp.float32)
        scores = scores * query.shape[-1] ** -0.5
        scores = jnp.where(jnp.broadcast_to(seen, scores.shape), scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        weights = Dropout(self.config.attention_dropout, name="attn_drop")(weights, dropout)
        return jnp.einsum("bnlm,bmnd->blnd", weights, value)


class CodeBlock(nn.Module):
    """Self-attention and an MLP of four times the width, each normalised before and added."""

    config: cfg.CodeTransformer
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b l c"],
        dropout: Key[Array, "b"] | None,
        cache: Cache | None,
        start: Start,
    ) -> tuple[Float[Array, "b l c"], Cache | None]:
        width, rate = x.shape[-1], self.config.residual_dropout
        attend = CodeAttention(self.config, self.dtype, name="attn")
        y, cache = attend(LayerNorm(self.dtype, name="ln1")(x), dropout, cache, start)
        x = split_batch(x + Dropout(rate, name="resid_drop")(y, dropout))
        dense = partial(nn.Dense, dtype=self.dtype, kernel_init=normal)
        mlp = ModuleList((partial(dense, 4 * width), None, partial(dense, width)), name="mlp")
        y = mlp(0, LayerNorm(self.dtype, name="ln2")(x))
        y = mlp(2, gelu(y))
        return split_batch(x + Dropout(rate, name="mlp_drop")(y, dropout)), cache


class CodeTransformer(nn.Module):
    """Logits of the token after each token of a sequence; `config` leaves nothing open."""

    config: cfg.CodeTransformer
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        config = self.config
        embed = partial(Embed, features=config.width, dtype=self.dtype)
        self.tok_emb = embed(config.vocab_size, embedding_init=normal)
        self.pos_emb = embed(config.block_size, embedding_init=zeros)
        self.drop = Dropout(config.embedding_dropout)
        kind = nn.remat(CodeBlock) if self.remat else CodeBlock
        self.blocks = ModuleList((partial(kind, config, self.dtype),) * config.layers)
        self.ln_f = LayerNorm(self.dtype)
        self.head = nn.Dense(
            config.vocab_size, use_bias=False, dtype=self.dtype, kernel_init=normal
        )

    def __call__(
        self,
        tokens: Int[Array, "b l"],
        dropout: Key[Array, "b"] | None = None,
        since: int = 0,
    ) -> Float[Array, "b l2 v"]:
        """The logits of the token after each of `tokens`, from the one at position `since` on.

        In training `dropout` are the examples' own keys.

        Raises:
            ValueError: more tokens than there are positions.
        """
        x = self._embedded(tokens, 0, dropout)
        for i in range(self.config.layers):
            x, _ = self.blocks(i, x, dropout, None, 0)
        return self._logits(x[:, since:])

    def extend(
        self, tokens: Int[Array, "b l"], caches: tuple[Cache, ...], start: Start
    ) -> tuple[Float[Array, "b v"], tuple[Cache, ...]]:
        """The logits of the token after the last of `tokens`, which are at the positions from
        `start` on; `caches` have the positions before, and then these too.

        The first `config.n_unmasked` tokens must come together, from 0 on.
        """
        x, extended = self._embedded(tokens, start, None), []
        for i, cache in enumerate(caches):
            x, cache = self.blocks(i, x, None, cache, start)
            extended.append(cache)
        return self._logits(x[:, -1:])[:, 0], tuple(extended)

    def _embedded(
        self, tokens: Int[Array, "b l"], start: Start, dropout: Key[Array, "b"] | None
    ) -> Float[Array, "b l c"]:
        length, most = tokens.shape[1], self.config.block_size
        if length > most:
            raise ValueError(f"{length} tokens; the transformer has {most} positions")
        places = self.pos_emb(start + jnp.arange(length))
        return self.drop(self.tok_emb(tokens) + places[None], dropout)

    def _logits(self, x: Float[Array, "b l c"]) -> Float[Array, "b l v"]:
        return self.head(self.ln_f(x)).astype(jnp.float32)


def empty_caches(
    config: cfg.CodeTransformer, batch: int, length: int, dtype: DTypeLike = jnp.float32
) -> tuple[Cache, ...]:
    """What `CodeTransformer.extend` begins with, for sequences of at most `length` tokens."""
    shape = (batch, length, config.num_heads, config.width // config.num_heads)
    return (Cache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)),) * config.layers
