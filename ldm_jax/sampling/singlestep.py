"""Runge-Kutta solvers: Heun's, and those in lambda that evaluate at levels inside a step.

`levels.inner_levels` puts these levels into the list, on the host. A step then goes from level to
level as any other; the carry says how much of it is done.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, Int

from ldm_jax.core.typing import Denoise, Level, Prediction
from ldm_jax.sampling.solver_base import (
    BaseSolver,
    Eta,
    ancestral_step,
    ddim_update,
    eps_coefficient,
    is_first_order,
    is_noisy,
    log_snr,
    polynomial_weights,
    x0_coefficient,
)


class HeunCarry(NamedTuple):
    """The examples where the denoiser is asked next, and the slope that led there."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    eps: Float32[Array, "b ..."]
    coefficient: Float32[Array, ""]
    """What eps was multiplied by; 0 when there is nothing to correct."""


@dataclasses.dataclass(frozen=True)
class Heun(BaseSolver):
    """Karras 2022 (arXiv:2206.00364), algorithm 1, by 2 steps - 1 evaluations.

    Euler's step along dy/dr = eps, then half the difference between the slopes at its two ends.
    The step to the final level is Euler's alone: where r = 0 there is no slope.
    """

    order = 2

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """0, 1, 1, 2, 2, ..., steps: inner levels twice, to correct there and to go on."""
        return (np.arange(max(2 * steps, 1)) + 1) // 2

    def init(self, x: Float32[Array, "b *d"]) -> HeunCarry:
        """The carry before the first step."""
        return HeunCarry(x, jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros((), jnp.float32))

    def step(
        self,
        carry: HeunCarry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> HeunCarry:
        """Algorithm 1's Euler step (line 5), or from a level to itself its correction (line 8)."""
        prediction = denoise(carry.x, level)
        eps = prediction.eps
        correction = carry.coefficient * (eps - carry.eps) / 2
        # With the same eps at the corrected x, x0 is another. No correction comes without signal.
        inverse = 1 / jnp.where(level.alpha == 0, 1.0, level.alpha)
        along = prediction._replace(x0=prediction.x0 + inverse * correction)
        x = ddim_update(carry.x + correction, along, level, next_level)
        return HeunCarry(x, prediction.x0, eps, eps_coefficient(level, next_level))


class Carry(NamedTuple):
    """The examples where the denoiser is asked next, and where the step began."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    stage: Int[Array, ""]
    """How many evaluations the step has behind it."""
    base: Float32[Array, "b ..."]
    prediction: Prediction
    """At the base, as is the level."""
    level: Level
    noise: Float32[Array, "b ..."]
    """What the step's first stage drew."""


@dataclasses.dataclass(frozen=True)
class _Stages(BaseSolver):
    """What the solvers below share: a step from `base` in stages, as many as its order."""

    def evaluations(self, steps: int) -> int:
        """A stage each, but the last step, to no noise, is of first order with one evaluation."""
        return self.order * steps - (self.order - 1) if steps else 0

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step."""
        zeros, one = jnp.zeros_like(x), jnp.ones((), jnp.float32)
        level = Level(one, one, one, jnp.zeros((), bool))
        stage = jnp.zeros((), jnp.int32)
        return Carry(x, zeros, stage, x, Prediction(zeros, zeros), level, zeros)

    def _begin(self, carry: Carry, level: Level, denoise: Denoise) -> tuple[Carry, Prediction]:
        """The carry whose base is that of this step, and the prediction at `level`."""
        found = denoise(carry.x, level)
        now = Prediction(found.x0, found.eps)
        first = carry.stage == 0

        def keep(new: Array, old: Array) -> Array:
            return jnp.where(first, new, old)

        base = keep(carry.x, carry.base)
        prediction = Prediction(
            *(keep(a, b) for a, b in zip(now[:2], carry.prediction[:2], strict=True))
        )
        since = Level(*(keep(a, b) for a, b in zip(level, carry.level, strict=True)))
        return Carry(carry.x, now.x0, carry.stage, base, prediction, since, carry.noise), now

    def _end(self, carry: Carry, x: Float32[Array, "b *d"], next_level: Level) -> Carry:
        """The carry at `next_level`, one stage on."""
        first_order = is_first_order(carry.level, next_level)
        stage = jnp.where(first_order, 0, (carry.stage + 1) % self.order)
        return carry._replace(x=x, stage=stage)


@dataclasses.dataclass(frozen=True)
class DPMSolver(_Stages):
    """DPM-Solver-2 and -3, Lu 2022 (arXiv:2206.00927), algorithms 1 and 2, with r1 = 1/2 or 1/3
    and r2 = 2/3; `order` evaluations a step.

    Of order 2 it is Karras' and k-diffusion's "DPM2" too. A step with an infinite lambda at one
    of its ends is of first order, with one evaluation. Raises ValueError for another order.
    """

    order: int = 2

    def __post_init__(self) -> None:
        if self.order not in (2, 3):
            raise ValueError(f"order is {self.order}; it must be 2 or 3 (1 is DDIM)")

    def inner_ratios(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """At equal parts of the step in lambda."""
        u = np.arange(1, self.order)[:, None] / self.order
        return ratio ** (1 - u) * next_ratio**u

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """From the base, with eps linear in lambda through there and the last stage: its mean is
        eps + E[u] / u (eps_stage - eps), at the share u of the way (1/2 for algorithm 1)."""
        carry, now = self._begin(carry, level, denoise)
        began = carry.level
        lam = log_snr(began)
        h = log_snr(next_level) - lam
        u = (log_snr(level) - lam) / h
        mean_u = 0.5
        if self.order == 3:
            mean_u = polynomial_weights((jnp.zeros(()), jnp.ones(())), -h)[1]
        share = jnp.where((carry.stage == 0) | (h == 0), 0.0, mean_u / u)
        x = ddim_update(carry.base, carry.prediction, began, next_level)
        change = eps_coefficient(began, next_level) * share * (now.eps - carry.prediction.eps)
        return self._end(carry, x + change, next_level)


@dataclasses.dataclass(frozen=True)
class _Noisy(_Stages):
    """Two stages of a step that goes down to less noise and draws the rest (`ancestral_step`).

    Raises ValueError for an eta outside 0..1; more would leave no noise to step down to.
    """

    eta: Eta = 1.0
    order = 2

    def __post_init__(self) -> None:
        if isinstance(self.eta, float | int) and not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; for this sampler it must lie in 0..1")

    @property
    def stochastic(self) -> bool:
        """False only where eta is known to be 0 before tracing."""
        return is_noisy(self.eta)

    def inner_ratios(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """Half way in lambda to the noise that is kept; for eta 1 that is the next level's."""
        std = float(self.eta) * next_ratio * np.sqrt(1 - (next_ratio / ratio) ** 2)
        return np.sqrt(ratio * np.sqrt(next_ratio**2 - std**2))[None]

    def _down(
        self, carry: Carry, next_level: Level
    ) -> tuple[Level, Float32[Array, ""], Float32[Array, ""]]:
        """The level that the step goes down to, std of the fresh noise, and where in lambda the
        step ends.

        No noise is drawn on the way to the level inside.
        """
        down, std = ancestral_step(carry.level, next_level, self.eta)
        inner = (carry.stage == 0) & ~is_first_order(carry.level, next_level)
        down = down._replace(sigma=jnp.where(inner, next_level.sigma, down.sigma))
        return down, jnp.where(inner, 0.0, std), log_snr(down)

    def _advance(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        noise: Float32[Array, "b *d"] | None,
        coefficient: Callable[[Level, Level], Float32[Array, ""]],
        change: Float32[Array, "b *d"],
    ) -> Carry:
        """From the base; at the second stage by the midpoint rule, change / (2 u), for the `change`
        of eps or x0 since, found at the share u of the way."""
        began = carry.level
        down, std, end = self._down(carry, next_level)
        lam = log_snr(began)
        u = (log_snr(level) - lam) / (end - lam)
        share = jnp.where((carry.stage == 0) | (end == lam), 0.0, 0.5 / u)
        x = ddim_update(carry.base, carry.prediction, began, down)
        x = x + coefficient(began, down) * share * change
        return self._end(carry, x if noise is None else x + std * noise, next_level)


@dataclasses.dataclass(frozen=True)
class DPM2Ancestral(_Noisy):
    """k-diffusion's "DPM2 a": DPM-Solver-2's step down, and fresh noise back up."""

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """Along eps to the middle; from the base along the eps found there, and noise."""
        carry, now = self._begin(carry, level, denoise)
        change = now.eps - carry.prediction.eps
        return self._advance(carry, level, next_level, noise, eps_coefficient, change)


@dataclasses.dataclass(frozen=True)
class DPMSolverPP2SAncestral(_Noisy):
    """DPM-Solver++(2S), Lu 2022b (arXiv:2211.01095), algorithm 1, and fresh noise back up.

    k-diffusion's "DPM++ 2S a"; for eta 0 the paper's deterministic solver with r = 1/2.
    """

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """Along x0 to the middle; from the base along the x0 found there, and noise."""
        carry, now = self._begin(carry, level, denoise)
        change = now.x0 - carry.prediction.x0
        return self._advance(carry, level, next_level, noise, x0_coefficient, change)


@dataclasses.dataclass(frozen=True)
class DPMSolverPPSDE(DPMSolverPP2SAncestral):
    """k-diffusion's "DPM++ SDE": DPM-Solver++(2S) for the reverse SDE, noise in the middle too.

    The noise of the whole step contains that of its first half, with the share that the SDE of
    eta 1 gives it: in y = x / alpha noise fades as r^2, so that of its variance (r'^2 / r_s^2 -
    r'^2 / r^2) / (1 - r'^2 / r^2) = r' / (r + r') is older than the middle r_s. (k-diffusion takes
    both from a Brownian path over sigma, whose share of the middle is nearly that.)
    """

    def inner_ratios(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """Half way in lambda."""
        return np.sqrt(ratio * next_ratio)[None]

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """As of a deterministic solver; the second stage's noise is made of both."""
        if noise is None:
            return super().step(carry, level, next_level, denoise, noise)
        began, there = carry.level, next_level
        ratio = there.sigma * began.alpha / (there.alpha * began.sigma)
        older = jnp.where(carry.stage == 0, 0.0, ratio / (1 + ratio))
        noise = jnp.sqrt(older) * carry.noise + jnp.sqrt(1 - older) * noise
        carry = super().step(carry, level, next_level, denoise, noise)
        return carry._replace(noise=noise)

    def _down(
        self, carry: Carry, next_level: Level
    ) -> tuple[Level, Float32[Array, ""], Float32[Array, ""]]:
        """As of a step of its own, to the middle as to the end; its end is that of the level."""
        down, std = ancestral_step(carry.level, next_level, self.eta)
        return down, std, log_snr(next_level)
