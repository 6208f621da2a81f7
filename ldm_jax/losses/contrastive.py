"""Losses of pictures and texts that are compared with each other, as functions of logits and of
which pairs match."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def same_texts(tokens: Int[Array, "b l"]) -> Bool[Array, "b b"]:
    """Which texts of a batch are equal, token for token; each is equal to itself."""
    return (tokens[:, None] == tokens[None]).all(axis=-1)


def softmax_loss(
    logits: Float[Array, "b b"], matching: Bool[Array, "b b"] | Float[Array, "b b"]
) -> Float[Array, ""]:
    """The mean of two cross-entropies (Radford 2021, figure 3): of the texts for each picture, and
    of the pictures for each text.

    Args:
        logits: of picture i (row) with text j (column).
        matching: the same for which pairs match, at least one of each row and column. Where
            several do, they share the target equally (Yang 2022, arXiv:2204.03610, eq. 3).
    """
    return (_cross_entropy(logits, matching) + _cross_entropy(logits.T, matching.T)) / 2


def _cross_entropy(logits: Float[Array, "b m"], matching: Array) -> Float[Array, ""]:
    targets = matching.astype(jnp.float32)
    targets = targets / targets.sum(axis=1, keepdims=True)
    return -(targets * jax.nn.log_softmax(logits, axis=1)).sum(axis=1).mean()


def sigmoid_loss(
    logits: Float[Array, "b b"], matching: Bool[Array, "b b"] | Float[Array, "b b"]
) -> Float[Array, ""]:
    """Each pair by itself as right or wrong: the sum of -log sigmoid(±logit) over all pairs, a
    picture (Zhai 2023, arXiv:2303.15343, algorithm 1). Arguments as of `softmax_loss`."""
    signs = 2 * matching.astype(jnp.float32) - 1
    return -jax.nn.log_sigmoid(signs * logits).sum(axis=1).mean()


def retrieval_accuracy(
    logits: Float[Array, "b m"], matching: Bool[Array, "b m"]
) -> Float[Array, ""]:
    """The share of rows whose largest logit is of a match."""
    best = jnp.argmax(logits, axis=1)
    found = jnp.take_along_axis(matching, best[:, None], axis=1)
    return found.astype(jnp.float32).mean()
