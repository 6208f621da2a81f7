"""Heun's method: a step of second order from one level to the next, without memory of others."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from ldm_jax.sampling.loop import gain, transfer
from ldm_jax.typing import Denoise, Level


class Carry(NamedTuple):
    """The examples where the denoiser is asked next, and the slope that led there."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]
    eps: Float32[Array, "b ..."]
    gain: Float32[Array, ""]
    """What eps was multiplied by; 0 when there is nothing to correct."""


@dataclasses.dataclass(frozen=True)
class Heun:
    """Karras 2022 (arXiv:2206.00364), algorithm 1, by 2 steps - 1 evaluations.

    Euler's step along dy/dr = eps (see `transfer`), then half the difference between the slopes at
    its two ends. The step to the final level is Euler's alone: where r = 0 there is no slope.
    """

    @property
    def stochastic(self) -> bool:
        """Always False."""
        return False

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
        x0, eps, _ = denoise(carry.x, level)
        corrected = carry.x + carry.gain * (eps - carry.eps) / 2
        x = transfer(corrected, eps, level, next_level)
        return Carry(x, x0, eps, gain(level, next_level))
