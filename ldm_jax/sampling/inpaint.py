"""Inpainting by replacement: a solver that keeps a known part of the picture at every step."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from ldm_jax.typing import Denoise, Level, Solver


@dataclass(frozen=True, eq=False)
class Inpaint:
    """`solver`, after whose steps the pixels where `mask` is 0 are those of `known` at that level.

    They get the same `noise` at every level (Lugmayr 2022, arXiv:2201.09865, eq. 8a, without its
    resampling), and none at the final one. Any U-Net serves; it need not be trained for this.
    """

    solver: Solver
    known: Float[Array, "b h w z"]
    noise: Float[Array, "b h w z"]
    mask: Float[Array, "b h w 1"]

    @property
    def stochastic(self) -> bool:
        """As the solver is."""
        return self.solver.stochastic

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """As the solver's."""
        return self.solver.visits(steps)

    def between(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """As the solver's."""
        return self.solver.between(ratio, next_ratio)

    def init(self, x: Float[Array, "b h w z"]) -> Any:
        """As the solver's."""
        return self.solver.init(x)

    def step(
        self,
        carry: Any,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float[Array, "b h w z"] | None,
    ) -> Any:
        """The solver's step, then the known pixels put back."""
        carry = self.solver.step(carry, level, next_level, denoise, noise)
        noisy = next_level.alpha * self.known + next_level.sigma * self.noise
        kept = jnp.where(next_level.final, self.known, noisy)
        return carry._replace(x=self.mask * carry.x + (1 - self.mask) * kept)
