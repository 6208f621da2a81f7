"""What a multistep solver remembers: its last evaluations, and where they were made."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from ldm_jax.core.typing import Level


class History(NamedTuple):
    """The examples at the level reached, and what was predicted on the way there."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    values: tuple[Float32[Array, "b ..."], ...]
    """eps or x0 of the last evaluations, newest first."""
    nodes: tuple[Float32[Array, ""], ...]
    """The solver's coordinate of each of them."""
    known: Int[Array, ""]
    """How many of them there are."""


def start(x: Float32[Array, "b *d"], length: int) -> History:
    """Nothing remembered yet, of at most `length` evaluations."""
    nothing, none = jnp.zeros_like(x), jnp.zeros((), jnp.float32)
    return History(x, nothing, (nothing,) * length, (none,) * length, jnp.zeros((), jnp.int32))


def remember(
    carry: History,
    x: Float32[Array, "b *d"],
    x0: Float32[Array, "b *d"],
    value: Float32[Array, "b *d"],
    node: Float32[Array, ""],
    level: Level,
) -> History:
    """The carry with one more evaluation, at x of the next level; the oldest is forgotten.

    One at a level without signal, whose coordinate has no end, does not count.
    """
    values = (value, *carry.values)[: len(carry.values)]
    nodes = (node, *carry.nodes)[: len(carry.nodes)]
    known = jnp.minimum(carry.known + 1, len(values))
    return History(x, x0, values, nodes, jnp.where(level.alpha == 0, 0, known))
