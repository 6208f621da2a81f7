"""Linear multistep solvers over eps: PLMS, LMS and DEIS, one evaluation a step."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.solver_base import (
    BaseSolver,
    History,
    ddim_update,
    empty_history,
    eps_coefficient,
    is_first_order,
    log_snr,
    mean_change,
    remember,
)

ADAMS_BASHFORTH = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the slopes, newest first, when there are 1, 2, 3 or 4."""


class PLMSCarry(NamedTuple):
    """The examples where the denoiser is asked next, and the slopes that led there."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    past: tuple[Float32[Array, "b ..."], Float32[Array, "b ..."], Float32[Array, "b ..."]]
    """The last three eps, newest first."""
    coefficient: Float32[Array, ""]
    """What the last slope was multiplied by."""
    evaluations: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class PLMS(BaseSolver):
    """Pseudo linear multistep, Liu 2022 (arXiv:2202.09778), eq. 12, started as CompVis does.

    The first step is Euler's, corrected once by half the difference between the slopes at its two
    ends, so that there are steps + 1 evaluations; a single step is left as it is. Then follow
    Adams-Bashforth steps over 2, 3 and at last 4 slopes, with the weights of equal strides
    whatever the levels, which makes it of second order.
    """

    order = 2

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """0, 1, 1, 2, 3, ..., steps; for a single step 0 and 1."""
        levels = np.arange(steps + 1)
        return np.insert(levels, 1, 1) if steps > 1 else levels

    def init(self, x: Float32[Array, "b *d"]) -> PLMSCarry:
        """The carry before the first step."""
        zeros, zero = jnp.zeros_like(x), jnp.zeros((), jnp.float32)
        return PLMSCarry(x, zeros, (zeros,) * 3, zero, jnp.zeros((), jnp.int32))

    def step(
        self,
        carry: PLMSCarry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> PLMSCarry:
        """Liu 2022, eq. 11 along eq. 12's slope, or at the second evaluation the correction."""
        prediction = denoise(carry.x, level)
        eps = prediction.eps
        correcting = carry.evaluations == 1
        correction = jnp.where(correcting, carry.coefficient / 2, 0.0) * (eps - carry.past[0])
        slopes = (eps, *carry.past)
        row = jnp.clip(carry.evaluations - 1, 0, 3)
        weights = jnp.asarray(ADAMS_BASHFORTH, jnp.float32)[row]
        slope = sum(weights[i] * slopes[i] for i in range(4))
        coefficient = eps_coefficient(level, next_level)
        # At the corrected x the same eps belongs to another x0.
        x = carry.x + correction
        along = prediction._replace(x0=prediction.x0 + _shift(correction, level))
        x = ddim_update(x, along, level, next_level) + coefficient * (slope - eps)
        # The slope that corrected is not kept: it is asked for again where the step really ended.
        past = tuple(
            jnp.where(correcting, old, new) for old, new in zip(carry.past, slopes, strict=False)
        )
        return PLMSCarry(x, prediction.x0, past, coefficient, carry.evaluations + 1)


def _shift(correction: Float32[Array, "b *d"], level: Level) -> Float32[Array, "b *d"]:
    """The change of x0 that a change of x brings, eps being kept; 0 where there is no signal."""
    inverse = 1 / jnp.where(level.alpha == 0, 1.0, level.alpha)
    return jnp.where(level.alpha == 0, 0.0, inverse) * correction


@dataclasses.dataclass(frozen=True)
class LMS(BaseSolver):
    """Linear multistep over the last four slopes: Adams-Bashforth for any strides, as k-diffusion.

    The weights integrate the polynomial through the slopes of dy/dr = eps over the step.
    """

    order = 4

    def init(self, x: Float32[Array, "b *d"]) -> History:
        """The carry before the first step."""
        return empty_history(x, self.order - 1)

    def step(
        self,
        carry: History,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> History:
        """x' = alpha' (y + (r' - r) sum_k w_k eps_k), the mean of a polynomial in r."""
        prediction = denoise(carry.x, level)
        r, next_r = level.sigma / level.alpha, next_level.sigma / next_level.alpha
        values, nodes = (prediction.eps, *carry.values), (r, *carry.nodes)
        u = [(node - r) / (next_r - r) for node in nodes]
        # From a level to itself, or from one without signal, there is nothing to integrate over.
        first_order = (level.alpha == 0) | (next_r == r)
        count = jnp.where(first_order, 1, carry.num_values + 1)
        x = ddim_update(carry.x, prediction, level, next_level)
        x = x + eps_coefficient(level, next_level) * mean_change(values, u, 0.0, count)
        return remember(carry, x, prediction.x0, prediction.eps, r, level)


@dataclasses.dataclass(frozen=True)
class DEIS(BaseSolver):
    """Diffusion exponential integrator, Zhang & Chen 2022 (arXiv:2204.13902), eq. 14, order 3.

    eps is the polynomial in lambda through its last three values (the paper has several choices
    of variable; diffusers has this one), integrated against e^-lambda. The first steps, and the
    one to sigma = 0, are of lower order.
    """

    order = 3

    def init(self, x: Float32[Array, "b *d"]) -> History:
        """The carry before the first step."""
        return empty_history(x, self.order - 1)

    def step(
        self,
        carry: History,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> History:
        """x' = alpha' / alpha x - sigma' (e^h - 1) sum_k w_k eps_k, the w_k under e^-lambda."""
        prediction = denoise(carry.x, level)
        lam = log_snr(level)
        h = log_snr(next_level) - lam
        values, nodes = (prediction.eps, *carry.values), (lam, *carry.nodes)
        u = [(node - lam) / h for node in nodes]
        first_order = is_first_order(level, next_level) | (h == 0)
        count = jnp.where(first_order, 1, carry.num_values + 1)
        x = ddim_update(carry.x, prediction, level, next_level)
        x = x + eps_coefficient(level, next_level) * mean_change(values, u, -h, count)
        return remember(carry, x, prediction.x0, prediction.eps, lam, level)
