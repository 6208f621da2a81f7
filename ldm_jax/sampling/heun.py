"""Heun's method: a step of second order from one level to the next, without memory of others."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.moves import gain, move
from ldm_jax.sampling.once import Once


class Carry(NamedTuple):
    """The examples where the denoiser is asked next, and the slope that led there."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    eps: Float32[Array, "b ..."]
    gain: Float32[Array, ""]
    """What eps was multiplied by; 0 when there is nothing to correct."""


@dataclasses.dataclass(frozen=True)
class Heun(Once):
    """Karras 2022 (arXiv:2206.00364), algorithm 1, by 2 steps - 1 evaluations.

    Euler's step along dy/dr = eps (see `moves`), then half the difference between the slopes at
    its two ends. The step to the final level is Euler's alone: where r = 0 there is no slope.
    """

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """0, 1, 1, 2, 2, ..., steps: inner levels twice, to correct there and to go on."""
        return (np.arange(max(2 * steps, 1)) + 1) // 2

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step."""
        return Carry(x, jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros((), jnp.float32))

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """Algorithm 1's Euler step (line 5), or from a level to itself its correction (line 8)."""
        prediction = denoise(carry.x, level)
        eps = prediction.eps
        correction = carry.gain * (eps - carry.eps) / 2
        # With the same eps at the corrected x, x0 is another. No correction comes without signal.
        inverse = 1 / jnp.where(level.alpha == 0, 1.0, level.alpha)
        along = prediction._replace(x0=prediction.x0 + inverse * correction)
        x = move(carry.x + correction, along, level, next_level.alpha, next_level.sigma)
        length = gain(level, next_level.alpha, next_level.sigma)
        return Carry(x, prediction.x0, eps, length)
