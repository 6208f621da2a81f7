"""What the training step does to a codebook beside gradients: averages, revival, statistics.

Pure functions of the global batch: under `jit` with a sharded batch they give every device and
every process the same codebook, but for the order in which sums are rounded.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from ldm_jax.core import rngs

# Averages that have decayed to less say nothing more of where a vector should be.
LEAST_COUNT = 1e-20


@flax.struct.dataclass
class CodebookState:
    """Moving averages that a codebook is made of, and how long each vector was of no use.

    The leaves are arrays, or what stands for them: shapes, shardings, checkpoint entries.
    """

    counts: Any
    """[k] How many latents of a batch a vector is the nearest of."""
    sums: Any
    """[k d] The sum of these latents."""
    idle: Any
    """[k] Steps since a vector was last the nearest of any."""


def init_codebook_state(embedding: Float[Array, "k d"]) -> CodebookState:
    """The state before the first step: averages start at 0."""
    count = len(embedding)
    return CodebookState(
        jnp.zeros((count,), jnp.float32), jnp.zeros_like(embedding), jnp.zeros((count,), jnp.int32)
    )


def update_codebook(
    state: CodebookState,
    embedding: Float[Array, "k d"],
    latents: Float[Array, "b h w d"],
    indices: Int[Array, "b h w"],
    decay: float | None,
) -> tuple[CodebookState, Float[Array, "k d"]]:
    """State and vectors after the global batch `latents`, which `indices` assign to vectors.

    Counts and sums are moving averages with `decay` and a vector is their quotient (van den Oord
    2017, eq. 6 to 8). Both start at 0, so that after n steps both are too small by the same
    1 - decay**n, as in Adam: the quotient needs no correction, where averages that start at the
    first vectors would remember those. A vector that was never the nearest stays where it is.

    With `decay` None vectors are trained by gradients, and only `idle` changes.
    """
    count = len(embedding)
    flat = indices.reshape(-1)
    used = uses(indices, count)
    state = state.replace(idle=jnp.where(used > 0, 0, state.idle + 1))
    if decay is None:
        return state, embedding
    rows = latents.reshape(-1, latents.shape[-1]).astype(jnp.float32)
    sums = jax.ops.segment_sum(rows, flat, count)
    sums = decay * state.sums + (1 - decay) * sums
    counts = decay * state.counts + (1 - decay) * used.astype(jnp.float32)
    mean = sums / jnp.maximum(counts, LEAST_COUNT)[:, None]
    embedding = jnp.where((counts > LEAST_COUNT)[:, None], mean, embedding)
    return state.replace(counts=counts, sums=sums), embedding


def revive(
    state: CodebookState,
    embedding: Float[Array, "k d"],
    latents: Float[Array, "b h w d"],
    *,
    after: int,
    seed: int,
    step: Int[Array, ""] | int,
) -> tuple[CodebookState, Float[Array, "k d"]]:
    """Replaces every vector that was idle for `after` steps by a latent of the global batch.

    Which latent it becomes depends on `seed`, `step` and the vector's index alone: latents are
    divided into as many runs as there are vectors, and each draws from its own, so that no two
    become the same while there are latents enough. Averages of the revived start at 0 again.
    """
    count = len(embedding)
    rows = latents.reshape(-1, latents.shape[-1]).astype(embedding.dtype)
    edges = np.arange(count + 1, dtype=np.int64) * len(rows) // count
    first, length = edges[:-1], np.maximum(np.diff(edges), 1)
    key = rngs.at_step(rngs.stream(seed, "codebook/revive"), step)
    low, high = jnp.asarray(first, jnp.int32), jnp.asarray(first + length, jnp.int32)
    chosen = rows[jax.random.randint(key, (count,), low, high)]
    dead = state.idle >= after
    state = CodebookState(
        counts=jnp.where(dead, 0.0, state.counts),
        sums=jnp.where(dead[:, None], 0.0, state.sums),
        idle=jnp.where(dead, 0, state.idle),
    )
    return state, jnp.where(dead[:, None], chosen, embedding)


def uses(indices: Int[Array, "b h w"], size: int) -> Int[Array, " k"]:
    """How many latents have each of `size` codes."""
    return jnp.zeros((size,), jnp.int32).at[indices.reshape(-1)].add(1)


def usage(counts: Num[Array, " k"]) -> Float[Array, ""]:
    """The share of codes that any latent has."""
    return jnp.mean((counts > 0).astype(jnp.float32))


def perplexity(counts: Num[Array, " k"]) -> Float[Array, ""]:
    """exp of the entropy of the codes: how many there would be if all were equally frequent.

    Counts of many images are better given as float32, whose sum does not overflow.
    """
    share = counts.astype(jnp.float32) / jnp.maximum(counts.sum(), 1).astype(jnp.float32)
    return jnp.exp(-jnp.sum(jnp.where(share > 0, share * jnp.log(share), 0.0)))
