"""Guidance by the gradient of a classifier of noisy examples, in both forms of the paper."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from ldm_jax.core.typing import Denoise, Level, Prediction, Solver
from ldm_jax.sampling.once import asks_once
from ldm_jax.sampling.scales import Scale, scale_at

LogProb = Callable[[Float[Array, "b ..."], Level], Float[Array, "b"]]
"""log p(y | x) of each noisy example at one level, y being what is wanted of it."""


def gradient(log_prob: LogProb, x: Float[Array, "b *d"], level: Level) -> Float[Array, "b *d"]:
    """The gradient of each example's log p(y | x) by that example."""
    return jax.grad(lambda x: jnp.sum(log_prob(x, level)))(x)


def classifier(denoise: Denoise, log_prob: LogProb, scale: Scale) -> Denoise:
    """Classifier guidance, Dhariwal & Nichol 2021 (arXiv:2105.05233), algorithm 2, for any solver.

    eps - scale sigma grad log p(y | x), which is the score of p(x) p(y | x)^scale; x0 moves by
    scale sigma^2 / alpha grad. Where alpha is 0, x says nothing of y and nothing is changed. What
    is guided may itself be guided, without a classifier or by another model.
    """

    def guided(x: Float[Array, "b *d"], level: Level) -> Prediction:
        prediction = denoise(x, level)
        alpha, sigma = level.alpha, level.sigma
        some = alpha > 0
        slope = jnp.where(some, scale_at(scale, level), 0.0) * gradient(log_prob, x, level)
        return prediction._replace(
            x0=prediction.x0 + sigma**2 / jnp.where(some, alpha, 1.0) * slope,
            eps=prediction.eps - sigma * slope,
        )

    return guided


@dataclass(frozen=True, eq=False)
class MeanShift:
    """`solver`, whose steps' means move by scale Sigma grad log p(y | x), Sigma their variance.

    Dhariwal & Nichol 2021, algorithm 1, the gradient being taken where the step starts. For
    stochastic solvers that ask the denoiser once a step, where they stand, and add noise in
    proportion: DDPM with any variance, DDIM with eta above 0, Euler ancestral, DPM-Solver++ 2M
    SDE. A step without noise is not guided. Raises ValueError for other solvers.
    """

    solver: Solver
    log_prob: LogProb
    scale: Scale

    def __post_init__(self) -> None:
        name = type(self.solver).__name__
        if not self.solver.stochastic:
            raise ValueError(
                f"{name} adds no noise, whose variance the mean would be moved by; use classifier "
                "guidance of form 'eps', or a sampler with noise"
            )
        if not asks_once(self.solver):
            raise ValueError(
                f"{name} asks the denoiser more than once a step, of which each would move the "
                "mean; use classifier guidance of form 'eps', or a sampler that asks once"
            )

    @property
    def stochastic(self) -> bool:
        """Always True."""
        return True

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """As the solver's."""
        return self.solver.visits(steps)

    def between(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """As the solver's: none."""
        return self.solver.between(ratio, next_ratio)

    def init(self, x: Float[Array, "b ..."]) -> Any:
        """As the solver's."""
        return self.solver.init(x)

    def step(
        self,
        carry: Any,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float[Array, "b *d"],
    ) -> Any:
        """The solver's step, its mean moved.

        Steps with noise 0 and 1 tell the mean and the deviation, whatever the solver's variance
        is made of; all three share one prediction.
        """
        prediction = denoise(carry.x, level)

        def stepped(noise: Float[Array, "b *d"]) -> Any:
            return self.solver.step(carry, level, next_level, lambda *_: prediction, noise)

        std = stepped(jnp.ones_like(noise)).x - stepped(jnp.zeros_like(noise)).x
        slope = gradient(self.log_prob, carry.x, level)
        reached = stepped(noise)
        return reached._replace(x=reached.x + scale_at(self.scale, level) * std**2 * slope)
