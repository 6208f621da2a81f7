"""Solvers that remember earlier predictions: PLMS and DPM-Solver++ 2M, one evaluation a step."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from ldm_jax.sampling.loop import gain, transfer
from ldm_jax.typing import Denoise, Level

ADAMS_BASHFORTH = (
    (1.0, 0.0, 0.0, 0.0),
    (3 / 2, -1 / 2, 0.0, 0.0),
    (23 / 12, -16 / 12, 5 / 12, 0.0),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Weights of the slopes, newest first, when 1, 2, 3 or 4 are known."""


class PLMSCarry(NamedTuple):
    """The examples where the denoiser is asked next, and the slopes that led there."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    past: tuple[Float32[Array, "b ..."], Float32[Array, "b ..."], Float32[Array, "b ..."]]
    """The last three eps, newest first."""
    gain: Float32[Array, ""]
    """What the last slope was multiplied by."""
    evaluations: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class PLMS:
    """Pseudo linear multistep, Liu 2022 (arXiv:2202.09778), eq. 12, started as CompVis does.

    The first step is Euler's, corrected once by half the difference between the slopes at its two
    ends, so that there are steps + 1 evaluations; a single step is left as it is. Then follow
    Adams-Bashforth steps over 2, 3 and at last 4 slopes, with the weights of equal strides
    whatever the levels.
    """

    @property
    def stochastic(self) -> bool:
        """Always False."""
        return False

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """0, 1, 1, 2, 3, ..., steps; for a single step 0 and 1."""
        once = np.arange(steps + 1)
        return np.insert(once, 1, 1) if steps > 1 else once

    def init(self, x: Float32[Array, "b *d"]) -> PLMSCarry:
        """The carry before the first step."""
        nothing = jnp.zeros_like(x)
        none = jnp.zeros((), jnp.float32)
        return PLMSCarry(x, nothing, (nothing,) * 3, none, jnp.zeros((), jnp.int32))

    def step(
        self,
        carry: PLMSCarry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> PLMSCarry:
        """Liu 2022, eq. 11 along eq. 12's slope, or at the second evaluation the correction."""
        x0, eps, _ = denoise(carry.x, level)
        correcting = carry.evaluations == 1
        correction = jnp.where(correcting, carry.gain / 2, 0.0) * (eps - carry.past[0])
        slopes = (eps, *carry.past)
        known = jnp.clip(carry.evaluations - 1, 0, 3)
        weights = jnp.asarray(ADAMS_BASHFORTH, jnp.float32)[known]
        slope = sum(weights[i] * slopes[i] for i in range(4))
        x = transfer(carry.x + correction, slope, level, next_level)
        # The slope that corrected is not kept: it is asked for again where the step really ended.
        past = tuple(
            jnp.where(correcting, old, new) for old, new in zip(carry.past, slopes, strict=False)
        )
        return PLMSCarry(x, x0, past, gain(level, next_level), carry.evaluations + 1)


class DPMCarry(NamedTuple):
    """The examples at the level reached, the last prediction, and the last step's length."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    h: Float32[Array, ""]
    """In lambda = log(alpha / sigma)."""


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2M:
    """DPM-Solver++(2M), Lu 2022b (arXiv:2211.01095), algorithm 2: x0 extrapolated in lambda.

    The first step, having nothing to extrapolate from, and a step to sigma = 0, where lambda has
    no end, are of first order, which is DDIM. With `lower_order_final` so is the step to any final
    level; diffusers does that for fewer than 15 steps. It is k-diffusion's "DPM++ 2M" and
    diffusers' "midpoint".
    """

    lower_order_final: bool = False

    @property
    def stochastic(self) -> bool:
        """Always False."""
        return False

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """Every level once."""
        return np.arange(steps + 1)

    def init(self, x: Float32[Array, "b *d"]) -> DPMCarry:
        """The carry before the first step; a step of infinite length has no weight after it."""
        return DPMCarry(x, jnp.zeros_like(x), jnp.full((), jnp.inf, jnp.float32))

    def step(
        self,
        carry: DPMCarry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> DPMCarry:
        """Algorithm 2, lines 8 to 10, with -alpha_t (exp(-h) - 1) = alpha_t - alpha_s ratio."""
        x0, *_ = denoise(carry.x, level)
        first_order = next_level.sigma == 0
        if self.lower_order_final:
            first_order = first_order | next_level.final
        ratio = next_level.sigma / level.sigma
        h = jnp.log(next_level.alpha / (level.alpha * jnp.where(ratio == 0, 1.0, ratio)))
        share = jnp.where(first_order, 0.0, h / (2 * carry.h))
        data = x0 + share * (x0 - carry.x0)
        x = ratio * carry.x + (next_level.alpha - ratio * level.alpha) * data
        return DPMCarry(x, x0, h)
