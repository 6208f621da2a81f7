"""Inpainting by replacement: a solver that keeps a part of a picture at every step."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.solver_base import WrappedSolver, evaluates_once, forward_step


@dataclass(frozen=True, eq=False)
class Inpaint(WrappedSolver):
    """`solver`, after whose steps the pixels where `mask` is 0 are `original`'s at that level.

    Any U-Net serves; it need not be trained for this. The original pixels get the same `noise` at
    every level, and none at the final one (Lugmayr 2022, arXiv:2201.09865, eq. 8a).

    `resample` r above 1 is RePaint (algorithm 1 and section 4.2): what was drawn goes back into
    noise by `jump` levels and is drawn again, so that each stretch of `jump` levels is passed r
    times and new and kept part come to agree; the original then gets fresh noise each time. It
    costs about r times the evaluations. The solver must evaluate once a step, for a jump out of
    the middle of a step would leave it half done; one with memory starts anew after each jump.

    Raises ValueError for `resample` or `jump` below 1, and for RePaint with a solver that
    evaluates more than once a step.
    """

    original: Float[Array, "b h w z"]
    noise: Float[Array, "b h w z"]
    mask: Float[Array, "b h w 1"]
    resample: int = 1
    jump: int = 1

    def __post_init__(self) -> None:
        for name in ("resample", "jump"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self._repaints and not evaluates_once(self.solver):
            raise ValueError(
                f"resample is {self.resample}, but {type(self.solver).__name__} evaluates more "
                "than once a step; use a sampler that does not, such as ddim or ddpm"
            )

    @property
    def _repaints(self) -> bool:
        return self.resample > 1

    @property
    def stochastic(self) -> bool:
        """As the solver is; always with resampling."""
        return self.solver.stochastic or self._repaints

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """The solver's, and with resampling `jumps(steps, resample, jump)`."""
        if self._repaints:
            return jumps(steps, self.resample, self.jump)
        return self.solver.visits(steps)

    def evaluations(self, steps: int) -> int:
        """The solver's, and with resampling one for each visit but that of the final level."""
        return self.visits(steps).size - 1 if self._repaints else self.solver.evaluations(steps)

    def step(
        self,
        carry: Any,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float[Array, "b h w z"] | None,
    ) -> Any:
        """The solver's step, then the original pixels put back; or a jump back into noise."""
        if not self._repaints:
            return self._forward(carry, level, next_level, denoise, noise, self.noise)
        return jax.lax.cond(
            next_level.sigma * level.alpha > level.sigma * next_level.alpha,
            lambda: self._back(carry, level, next_level, noise),
            # Where pixels are kept the solver's noise is lost, and so is free for them.
            lambda: self._forward(carry, level, next_level, denoise, noise, noise),
        )

    def _forward(
        self,
        carry: Any,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float[Array, "b h w z"] | None,
        original_noise: Float[Array, "b h w z"],
    ) -> Any:
        """One step towards the data, with `original_noise` on the original pixels."""
        solver_noise = noise if self.solver.stochastic else None
        carry = self.solver.step(carry, level, next_level, denoise, solver_noise)
        noisy = next_level.alpha * self.original + next_level.sigma * original_noise
        kept = jnp.where(next_level.final, self.original, noisy)
        return carry._replace(x=self.mask * carry.x + (1 - self.mask) * kept)

    def _back(
        self, carry: Any, level: Level, next_level: Level, noise: Float[Array, "b h w z"]
    ) -> Any:
        """A sample of q(x at the noisier `next_level` | x at `level`), and no memory."""
        ratio, variance = forward_step(next_level, level)
        fresh = self.solver.init(ratio * carry.x + jnp.sqrt(variance) * noise)
        return fresh._replace(x0=carry.x0)


def jumps(steps: int, resample: int, jump: int) -> Int[np.ndarray, "e"]:
    """The levels that RePaint visits: every `jump` of them are passed `resample` times.

    Jumps back are counted from the last noisy level; `steps`, the final one, has none. Three steps
    with resample 2, jump 1 are 0, 1, 0, 1, 2, 1, 2, 3.
    """
    order = [0]
    for level in range(1, steps + 1):
        order.append(level)
        if level < steps and level >= jump and (steps - 1 - level) % jump == 0:
            order += list(range(level - jump, level + 1)) * (resample - 1)
    return np.asarray(order)
