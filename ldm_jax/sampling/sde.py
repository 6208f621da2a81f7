"""Predictors of the reverse SDE and correctors by Langevin's equation, after score_sde."""

import dataclasses
from typing import NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from ldm_jax.core.names import CorrectorName
from ldm_jax.core.typing import Denoise, Level, Process, Solver
from ldm_jax.sampling.solver_base import BaseSolver, Carry, MemorylessSolver, forward_step

Ratio = float | int | Float[Array, ""]


@dataclasses.dataclass(frozen=True)
class EulerMaruyama(MemorylessSolver):
    """Euler-Maruyama on the reverse SDE, Song 2021 (arXiv:2011.13456), eq. 6, in `process`'s time.

    Time runs over the levels' own timesteps. Where they are distant the drift of continuous time
    is far from that of the step: it wants hundreds of levels. A list that ends at the time of its
    final level leaves no time for a last step, which then is to the predicted x0.
    """

    process: Process
    order, stochastic = None, True

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"],
    ) -> Carry:
        """x - (f x - g^2 score) dt + g sqrt(dt) noise, and no noise at the final level."""
        prediction = denoise(carry.x, level)
        dt = level.timestep - next_level.timestep
        drift = jnp.asarray(self.process.drift_at(level.timestep), jnp.float32)
        diffusion = jnp.asarray(self.process.diffusion_at(level.timestep), jnp.float32)
        score = -prediction.eps / level.sigma
        mean = carry.x - (drift * carry.x - diffusion**2 * score) * dt
        mean = jnp.where(dt == 0, prediction.x0, mean)
        std = jnp.where(next_level.final, 0.0, diffusion * jnp.sqrt(dt))
        return Carry(x=mean + std * noise, x0=prediction.x0)


@dataclasses.dataclass(frozen=True)
class ReverseDiffusion(MemorylessSolver):
    """The reverse SDE with the forward steps' own strides, Song 2021, eq. 46 (appendix E)."""

    order, stochastic = None, True

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"],
    ) -> Carry:
        """(2 - a) x + G^2 score + G noise, where the forward step is x' = a x + G noise."""
        prediction = denoise(carry.x, level)
        ratio, variance = forward_step(level, next_level)
        mean = (2 - ratio) * carry.x - variance / level.sigma * prediction.eps
        std = jnp.where(next_level.final, 0.0, jnp.sqrt(variance))
        return Carry(x=mean + std * noise, x0=prediction.x0)


class CorrectedCarry(NamedTuple):
    """A predictor's carry, and how many evaluations the level has had."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    visited: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class PredictorCorrector(BaseSolver):
    """`corrector_steps` of Langevin's equation at each level, then `predictor`'s step to the next.

    Song 2021 (arXiv:2011.13456), algorithms 2 to 5, in the order of their code: a level is
    corrected before it is left, S (corrector_steps + 1) evaluations. "langevin" takes steps of
    2 (snr |z| / |score|)^2, with the norms of each example alone (their code averages them over
    the batch, on which a picture must not depend); "annealed_langevin" those of Song & Ermon 2019
    (arXiv:1907.05600), 2 (snr sigma)^2. Where variance is preserved they multiply steps by the
    timestep's 1 - beta, 0.98 to 1 for 1000 steps, which lists of levels do not have; here it is 1.

    Raises ValueError for another corrector, fewer than one step, an snr that is not above 0, and a
    predictor that asks more than once a step or remembers.
    """

    predictor: Solver
    corrector: CorrectorName = "langevin"
    corrector_steps: int = 1
    snr: Ratio = 0.16
    order, stochastic = None, True

    def __post_init__(self) -> None:
        if self.corrector not in get_args(CorrectorName):
            raise ValueError(
                f"corrector is {self.corrector!r}; it must be one of {get_args(CorrectorName)}"
            )
        if self.corrector_steps < 1:
            raise ValueError(f"corrector_steps is {self.corrector_steps}; it must be 1 or more")
        if isinstance(self.snr, float | int) and not self.snr > 0:
            raise ValueError(f"snr is {self.snr}; it must be above 0")
        if not isinstance(self.predictor, MemorylessSolver):
            raise ValueError(
                f"{type(self.predictor).__name__} cannot be corrected, as it remembers earlier "
                "steps or asks within them; use ddim, ddpm, euler_a, euler_maruyama or "
                "reverse_diffusion"
            )

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """Every level but the last `corrector_steps` + 1 times."""
        return np.append(np.repeat(np.arange(steps), self.corrector_steps + 1), steps)

    def init(self, x: Float32[Array, "b *d"]) -> CorrectedCarry:
        """The carry before the first step."""
        return CorrectedCarry(x, jnp.zeros_like(x), jnp.zeros((), jnp.int32))

    def step(
        self,
        carry: CorrectedCarry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"],
    ) -> CorrectedCarry:
        """x + step score + sqrt(2 step) noise, or the predictor's step."""
        found = denoise(carry.x, level)
        score = -found.eps / level.sigma
        step = self._length(score, noise, level)
        corrected = carry.x + step * score + jnp.sqrt(2 * step) * noise
        inner = Carry(carry.x, carry.x0)
        fresh = noise if self.predictor.stochastic else None
        predicted = self.predictor.step(inner, level, next_level, lambda x, level: found, fresh)
        x = jnp.where(carry.visited < self.corrector_steps, corrected, predicted.x)
        return CorrectedCarry(x, found.x0, (carry.visited + 1) % (self.corrector_steps + 1))

    def _length(
        self, score: Float32[Array, "b *d"], noise: Float32[Array, "b *d"], level: Level
    ) -> Float32[Array, "..."]:
        if self.corrector == "annealed_langevin":
            return 2 * (self.snr * level.sigma) ** 2
        axes = tuple(range(1, score.ndim))

        def power(values: Float32[Array, "b *d"]) -> Float32[Array, "b ..."]:
            return jnp.sum(values**2, axis=axes, keepdims=True)

        return 2 * self.snr**2 * power(noise) / power(score)
