"""How well the codes of a codebook are used, from how often each was taken."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def code_counts(indices: Int[Array, "..."], size: int) -> Float[Array, "k"]:
    """How often each of `size` codes is among `indices`. Counts of several batches add up."""
    return jnp.zeros(size, jnp.float32).at[indices.reshape(-1)].add(1.0)


def perplexity(counts: Float[Array, "k"]) -> Float[Array, ""]:
    """exp of the entropy of the codes' shares: the number of codes if all are used alike, 1 if
    one alone is."""
    shares = counts / jnp.maximum(jnp.sum(counts), 1)
    logarithms = jnp.log(jnp.where(shares > 0, shares, 1))
    return jnp.exp(-jnp.sum(shares * logarithms))


def usage(counts: Float[Array, "k"]) -> Float[Array, ""]:
    """The share of the codes that are used at all, in [0, 1]."""
    return jnp.mean((counts > 0).astype(jnp.float32))
