"""Levels between those of a list, for solvers that ask the denoiser within their steps."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from ldm_jax.typing import Level, Process, Solver

HALVINGS = 60
"""Of a stretch of time, until what is left is below float64's resolution."""


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
    times = np.asarray(levels.timestep, np.float64)
    low, high = (np.broadcast_to(t[inside], found.shape) for t in (times[1:], times[:-1]))
    between = _time_of(process, found, low, high)
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


def _time_of(
    process: Process,
    ratio: Float64[np.ndarray, "k s"],
    low: Float64[np.ndarray, "k s"],
    high: Float64[np.ndarray, "k s"],
) -> Float64[np.ndarray, "k s"]:
    """The times between `low` and `high` where sigma / alpha is `ratio`."""
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        noisier = process.sigma_at(middle) > ratio * process.alpha_at(middle)
        low, high = np.where(noisier, low, middle), np.where(noisier, middle, high)
    return (low + high) / 2
