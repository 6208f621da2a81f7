"""What solvers share unless they say otherwise: no noise, every level once, none between."""

import numpy as np
from jaxtyping import Float64, Int

from ldm_jax.core.typing import Solver


class Once:
    """A solver that asks the denoiser once at each level and draws nothing."""

    @property
    def stochastic(self) -> bool:
        """False."""
        return False

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """Every level once."""
        return np.arange(steps + 1)

    def between(
        self, ratio: Float64[np.ndarray, "s"], next_ratio: Float64[np.ndarray, "s"]
    ) -> Float64[np.ndarray, "k s"]:
        """None."""
        return np.empty((0, ratio.size))


def asks_once(solver: Solver) -> bool:
    """Whether a step of `solver` is one evaluation: every level once, and none between."""
    every_level = np.array_equal(solver.visits(3), np.arange(4))
    return every_level and not solver.between(np.array([2.0]), np.array([1.0])).size
