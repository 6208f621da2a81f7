"""Which times a batch is trained at: even or random numbers in [0, 1), and what they stand for.

Each distribution is a quantile function of a uniform number, so that numbers which cover [0, 1)
evenly cover any of them evenly.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Float32, Float64, Int, Int32, Key, UInt32

from ldm_jax.core import rngs
from ldm_jax.core.typing import Process

HISTORY = 10
"""Losses that second-moment sampling remembers of each timestep (Nichol & Dhariwal 2021)."""

_BELOW_ONE = 1 - 2.0**-24  # the largest float32 below 1


def independent(key: Key[Array, ""], index: UInt32[Array, "b"]) -> Float32[Array, "b"]:
    """A uniform number in [0, 1) for each example, a function of `key` and its global index."""
    return rngs.uniform(rngs.example_keys(key, index))


def low_discrepancy(
    key: Key[Array, ""], index: UInt32[Array, "b"], batch_size: int
) -> Float32[Array, "b"]:
    """Numbers in [0, 1), each uniform, that cover it evenly in every global batch.

    Row i of n gets (u + i / n) mod 1, u being the batch's own (Kingma 2021, arXiv:2107.00630,
    appendix I.1). Rows are known by their global index, which counts through the batches; what a
    device, a process or a micro-batch holds of them plays no part.
    """
    batch, row = jnp.divmod(index, np.uint32(batch_size))
    u = rngs.uniform(rngs.example_keys(key, batch)) + row.astype(jnp.float32) / batch_size
    return jnp.minimum(u - jnp.floor(u), _BELOW_ONE)


def logit_normal(u: Float[Array, "b"], mean: float = 0.0, std: float = 1.0) -> Float[Array, "b"]:
    """The quantile `u` of sigmoid(N(mean, std^2)), which is in [0, 1): often the middle, seldom
    the ends (Esser 2024, arXiv:2403.03206, eq. 19)."""
    logit = mean + std * _normal(u)
    return jnp.minimum(1 / (1 + jnp.exp(-logit)), _BELOW_ONE)


def log_noise(process: Process, points: int = 4096) -> Float64[np.ndarray, "n"]:
    """log(sigma / alpha) at evenly spaced u: the middles of `points` parts of [0, 1)."""
    t = process.time_at((np.arange(points) + 0.5) / points)
    with np.errstate(divide="ignore"):
        return np.log(process.sigma_at(t)) - np.log(process.alpha_at(t))


def log_normal(
    u: Float[Array, "b"], log_noise: Float64[np.ndarray, "n"], mean: float = -1.2, std: float = 1.2
) -> Float[Array, "b"]:
    """The number in [0, 1) at which log(sigma / alpha) is the quantile `u` of N(mean, std^2).

    Karras 2022 (arXiv:2206.00364), table 1, for any process: `log_noise` is `log_noise(process)`.
    What lies beyond the process's ends is drawn at them.
    """
    middles = (np.arange(len(log_noise)) + 0.5) / len(log_noise)
    ends = np.isfinite(log_noise)
    known, at = (jnp.asarray(values[ends], jnp.float32) for values in (log_noise, middles))
    return jnp.interp(mean + std * _normal(u), known, at)


class SecondMoment(NamedTuple):
    """The latest losses of each timestep, which decide how often it is drawn."""

    history: Float32[Array, "t 10"]
    count: Int32[Array, "t"]
    """Losses seen so far; the next one goes to place `count % 10`."""

    @classmethod
    def create(cls, num_timesteps: int) -> "SecondMoment":
        """Nothing seen."""
        return cls(
            jnp.zeros((num_timesteps, HISTORY), jnp.float32), jnp.zeros(num_timesteps, jnp.int32)
        )

    def probabilities(self, uniform: float = 0.001) -> Float32[Array, "t"]:
        """In proportion to sqrt(E[loss^2]), which makes the importance-weighted loss vary least
        (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 18), but for a share of `uniform`.

        Even until each timestep has ten losses.
        """
        root = jnp.sqrt(jnp.mean(self.history**2, axis=1))
        even = jnp.full_like(root, 1 / len(root))
        total = jnp.sum(root)
        by_loss = jnp.where(total > 0, root / jnp.where(total > 0, total, 1), even)
        warm = jnp.all(self.count >= HISTORY)
        return jnp.where(warm, (1 - uniform) * by_loss + uniform * even, even)

    def observe(self, t: Int[Array, "b"], losses: Float[Array, "b"]) -> "SecondMoment":
        """Remembers the losses of a global batch, as if one after the other."""
        order = jnp.argsort(t, stable=True)
        t, losses = t[order], losses[order].astype(jnp.float32)
        first, after = (jnp.searchsorted(t, t, side=side) for side in ("left", "right"))
        place = jnp.arange(len(t)) - first
        kept = after - first - place <= HISTORY  # earlier ones of many are overwritten
        row = jnp.where(kept, t, len(self.count))
        column = (self.count[t] + place.astype(jnp.int32)) % HISTORY
        return SecondMoment(
            self.history.at[row, column].set(losses, mode="drop"), self.count.at[t].add(1)
        )


def by_probability(
    u: Float[Array, "b"], probabilities: Float[Array, "t"]
) -> tuple[Int32[Array, "b"], Float32[Array, "b"]]:
    """The quantile `u` of the timesteps 0..T-1, and the weight 1 / (T p) of each one drawn.

    The weighted mean of a loss is then, in expectation, its mean over even timesteps.
    """
    total = len(probabilities)
    below = jnp.cumsum(probabilities)
    t = jnp.searchsorted(below, u * below[-1], side="right")
    t = jnp.minimum(t, total - 1).astype(jnp.int32)
    return t, 1 / (total * probabilities[t])


def _normal(u: Float[Array, "b"]) -> Float[Array, "b"]:
    """The quantile `u` of the standard normal; within 5.3 of 0."""
    return ndtri(jnp.clip(u, 2.0**-24, _BELOW_ONE))
