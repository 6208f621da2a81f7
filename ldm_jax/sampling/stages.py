"""Levels between those of a list, for solvers that ask the denoiser within their steps."""

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.core.typing import Level, Process, Solver


def inner_levels(solver: Solver, process: Process, levels: Level) -> Level:
    """`levels` with those that `solver` visits between them, for `loop.sample`.

    Most solvers have none, and `levels` comes back as it is. On the host in float64, so that
    neither `levels` nor the solver's eta may be traced. Steps with no noise at their end or no
    signal at their beginning get none.

    Raises ValueError for levels of which one has more noise than the one before.
    """
    alpha, sigma = np.asarray(levels.alpha, np.float64), np.asarray(levels.sigma, np.float64)
    inside = (alpha[:-1] > 0) & (sigma[1:] > 0)
    ratio, next_ratio = (
        sigma[:-1][inside] / alpha[:-1][inside],
        sigma[1:][inside] / alpha[1:][inside],
    )
    rising = np.flatnonzero(next_ratio > ratio)
    if rising.size:
        raise ValueError(f"noise rises after level {rising[0]}; levels must be noisiest first")
    found = solver.between(ratio, next_ratio)
    if not found.size:
        return levels
    between = np.asarray(process.time_of(found), np.float64)
    scale = np.asarray(process.alpha_at(between), np.float64)

    def merged(own: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """`own`, with the rows of `inner` after each level that has them."""
        places = np.repeat(np.flatnonzero(inside) + 1, len(inner))
        return np.insert(own, places, inner.T.reshape(-1))

    new = Level(between, scale, found * scale, np.zeros(found.shape, bool))
    old = jax.tree.map(np.asarray, levels)
    return Level(
        *(jnp.asarray(merged(a, b.astype(a.dtype))) for a, b in zip(old, new, strict=True))
    )
