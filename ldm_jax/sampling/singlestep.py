"""Runge-Kutta solvers in lambda: they ask the denoiser at levels between those of the list.

`inner_levels` puts these levels into the list, on the host. A step then goes from level to level
as any other; the carry says which of them are between.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Float64, Int

from ldm_jax.core.typing import Denoise, Level, Prediction
from ldm_jax.sampling.interpolation import weights
from ldm_jax.sampling.moves import (
    Eta,
    ancestral,
    bare,
    gain,
    gain_of_x0,
    is_noisy,
    log_snr,
    move,
)
from ldm_jax.sampling.once import Once


class Carry(NamedTuple):
    """The examples where the denoiser is asked next, and where the step began."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    stage: Int[Array, ""]
    """How many evaluations the step has behind it."""
    base: Float32[Array, "b ..."]
    prediction: Prediction
    level: Level
    noise: Float32[Array, "b ..."]
    """What the step's first stage drew."""


@dataclasses.dataclass(frozen=True)
class _Stages(Once):
    """What the solvers of this file share: a step from `base`, in stages."""

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step."""
        nothing, one = jnp.zeros_like(x), jnp.ones((), jnp.float32)
        level = Level(one, one, one, jnp.zeros((), bool))
        stage = jnp.zeros((), jnp.int32)
        return Carry(x, nothing, stage, x, Prediction(nothing, nothing), level, nothing)

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

    def _end(
        self, carry: Carry, x: Float32[Array, "b *d"], next_level: Level, stages: int
    ) -> Carry:
        """The carry at `next_level`, one stage on."""
        alone = bare(carry.level, next_level)
        stage = jnp.where(alone, 0, (carry.stage + 1) % stages)
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

    def between(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """At equal parts of the step in lambda."""
        parts = np.arange(1, self.order)[:, None] / self.order
        return ratio ** (1 - parts) * next_ratio**parts

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """From the base along its eps; then with the change of eps that the last stage found."""
        carry, now = self._begin(carry, level, denoise)
        began = carry.level
        start = log_snr(began.alpha, began.sigma)
        h = log_snr(next_level.alpha, next_level.sigma) - start
        part = (log_snr(level.alpha, level.sigma) - start) / h
        # eps is linear in lambda. Half way to the end is the midpoint rule of algorithm 1.
        mean = 0.5 if self.order == 2 else weights((jnp.zeros(()), jnp.ones(())), -h)[1]
        share = jnp.where((carry.stage == 0) | (h == 0), 0.0, mean / part)
        x = move(carry.base, carry.prediction, began, next_level.alpha, next_level.sigma)
        length = gain(began, next_level.alpha, next_level.sigma)
        x = x + length * share * (now.eps - carry.prediction.eps)
        return self._end(carry, x, next_level, self.order)


@dataclasses.dataclass(frozen=True)
class _Noisy(_Stages):
    """Two stages of a step that keeps part of the noise and draws the rest (`ancestral`).

    Raises ValueError for an eta outside 0..1; more would leave no noise to step down to.
    """

    eta: Eta = 1.0

    def __post_init__(self) -> None:
        if isinstance(self.eta, float | int) and not 0 <= self.eta <= 1:
            raise ValueError(f"eta is {self.eta}; for this sampler it must lie in 0..1")

    @property
    def stochastic(self) -> bool:
        """False only where eta is known to be 0 before tracing."""
        return is_noisy(self.eta)

    def between(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """Half way in lambda to the noise that is kept; for eta 1 that is the next level's."""
        std = float(self.eta) * next_ratio * np.sqrt(1 - (next_ratio / ratio) ** 2)
        return np.sqrt(ratio * np.sqrt(next_ratio**2 - std**2))[None]

    def _split(
        self, carry: Carry, next_level: Level
    ) -> tuple[Float32[Array, ""], Float32[Array, ""], Float32[Array, ""]]:
        """sigma that is kept, std that is fresh, and how long in lambda the whole step is.

        No noise is drawn on the way to the level between.
        """
        kept, std = ancestral(carry.level, next_level, self.eta)
        inner = (carry.stage == 0) & ~bare(carry.level, next_level)
        kept, std = jnp.where(inner, next_level.sigma, kept), jnp.where(inner, 0.0, std)
        return kept, std, log_snr(next_level.alpha, kept)

    def _advance(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        noise: Float32[Array, "b *d"] | None,
        gain: Callable[..., Float32[Array, ""]],
        difference: Float32[Array, "b *d"],
    ) -> Carry:
        """From the base; at the second stage by the midpoint rule for what has changed since."""
        began = carry.level
        kept, std, end = self._split(carry, next_level)
        start = log_snr(began.alpha, began.sigma)
        part = (log_snr(level.alpha, level.sigma) - start) / (end - start)
        share = jnp.where((carry.stage == 0) | (end == start), 0.0, 0.5 / part)
        x = move(carry.base, carry.prediction, began, next_level.alpha, kept)
        x = x + gain(began, next_level.alpha, kept) * share * difference
        return self._end(carry, x if noise is None else x + std * noise, next_level, 2)


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
        changed = now.eps - carry.prediction.eps
        return self._advance(carry, level, next_level, noise, gain, changed)


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
        changed = now.x0 - carry.prediction.x0
        return self._advance(carry, level, next_level, noise, gain_of_x0, changed)


@dataclasses.dataclass(frozen=True)
class DPMSolverPPSDE(DPMSolverPP2SAncestral):
    """k-diffusion's "DPM++ SDE": DPM-Solver++(2S) for the reverse SDE, noise in the middle too.

    The noise of the whole step contains that of its first half, with the share that the SDE of
    eta 1 gives it: in y = x / alpha noise fades as r^2, so that of its variance (r'^2 / r_s^2 -
    r'^2 / r^2) / (1 - r'^2 / r^2) = r' / (r + r') is older than the middle r_s. (k-diffusion takes
    both from a Brownian path over sigma, whose share of the middle is nearly that.)
    """

    def between(
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

    def _split(
        self, carry: Carry, next_level: Level
    ) -> tuple[Float32[Array, ""], Float32[Array, ""], Float32[Array, ""]]:
        """As of a step of its own, to the middle as to the end; its length is to the level."""
        kept, std = ancestral(carry.level, next_level, self.eta)
        return kept, std, log_snr(next_level.alpha, next_level.sigma)
