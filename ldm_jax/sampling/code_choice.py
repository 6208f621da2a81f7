"""Drawing one of many codes from logits: temperature, then top-k, then top-p."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def limit(
    logits: Float[Array, "b v"], top_k: Int[Array, ""], top_p: Float[Array, ""]
) -> Float[Array, "b v"]:
    """`logits` with minus infinity for all but the likely ones.

    Of the `top_k` largest (1 or more; equal ones are all kept) those stay that are needed for a
    probability of `top_p`, of the largest ones first (nucleus sampling, Holtzman 2020, eq. 2).
    """
    falling = jnp.sort(logits, axis=-1, descending=True)
    place = jnp.clip(top_k, 1, logits.shape[-1]) - 1
    kth = jax.lax.dynamic_slice_in_dim(falling, place, 1, axis=-1)
    falling = jnp.where(falling >= kth, falling, -jnp.inf)
    share = jax.nn.softmax(falling, axis=-1)
    # What the larger ones have together; of the first it is 0, so that something stays. Of all but
    # the last it may be 1 by rounding: at 1 nothing is cut off.
    before = jnp.cumsum(share, axis=-1) - share
    needed = (before < top_p) | (top_p >= 1)
    least = jnp.min(jnp.where(needed, falling, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(logits >= jnp.maximum(kth, least), logits, -jnp.inf)


def choose(
    logits: Float[Array, "b v"],
    keys: Key[Array, "b"],
    temperature: Float[Array, ""],
    top_k: Int[Array, ""],
    top_p: Float[Array, ""],
) -> Int[Array, "b"]:
    """One code of each row, drawn with the row's own key."""
    kept = limit(logits / temperature, top_k, top_p)
    return jax.vmap(jax.random.categorical)(keys, kept).astype(jnp.int32)
