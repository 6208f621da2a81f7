"""Latent consistency models: each step predicts the end, and goes back into fresh noise."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float32

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.ancestral import Carry, Memoryless

SIGMA_DATA, TIMESTEP_SCALE = 0.5, 10.0


@dataclasses.dataclass(frozen=True)
class LCM(Memoryless):
    """Multistep consistency sampling, Luo 2023 (arXiv:2310.04378), algorithm 3, for distilled nets.

    The boundary condition f = c_skip x + c_out x0 (eq. 9) has the constants of the authors' code:
    with t the timestep times 10 and sigma_data 1/2, c_skip = sigma_data^2 / (t^2 + sigma_data^2)
    and c_out = t / sqrt(t^2 + sigma_data^2), which leave x0 alone but at the first few timesteps.
    Only discrete processes have such timesteps.
    """

    @property
    def stochastic(self) -> bool:
        """True."""
        return True

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"],
    ) -> Carry:
        """alpha' f + sigma' noise; at the final level f alone."""
        x0 = denoise(carry.x, level).x0
        t = TIMESTEP_SCALE * level.timestep
        total = t**2 + SIGMA_DATA**2
        clean = SIGMA_DATA**2 / total * carry.x + t / jnp.sqrt(total) * x0
        noisy = next_level.alpha * clean + next_level.sigma * noise
        return Carry(x=jnp.where(next_level.final, clean, noisy), x0=x0)
