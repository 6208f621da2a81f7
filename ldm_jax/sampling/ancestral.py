"""DDIM, DDPM and LCM: a step goes to the predicted x0, and from there to the next noise level.

The next level always comes from the list of levels, so any list of timesteps is valid.
"""

import dataclasses
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.solver_base import (
    Carry,
    Eta,
    MemorylessSolver,
    ancestral_step,
    check_eta,
    ddim_update,
    forward_step,
    is_noisy,
)

Variance = Literal["beta_tilde", "beta", "learned"]
SIGMA_DATA, TIMESTEP_SCALE = 0.5, 10.0
"""LCM's boundary condition; see there."""


@dataclasses.dataclass(frozen=True)
class DDIM(MemorylessSolver):
    """Denoising diffusion implicit models, Song 2020 (arXiv:2010.02502), eq. 12 and 16.

    Also k-diffusion's "Euler" (eta 0) and "Euler ancestral" (eta, usually 1): with y = x / alpha
    and r = sigma / alpha, eq. 12 is y' = x0 + sqrt(r'^2 - u^2) eps + u noise and eq. 16 is
    u = eta (r' / r) sqrt(r^2 - r'^2). For eta 0 that is y' = y + (r' - r) eps, Euler's step along
    dy/dr = eps. What differs between the names is which levels they visit.

    `eta` scales the noise of each step: 0 follows the probability flow, 1 has the posterior's
    variance (DDPM's "beta_tilde"). It may be traced, and then counts as stochastic. The step to
    the final level is deterministic, noise and its share of the variance both left out.
    Raises ValueError for a negative eta.
    """

    eta: Eta = 0.0
    order = 1

    def __post_init__(self) -> None:
        check_eta(self.eta)

    @property
    def stochastic(self) -> bool:
        """False only where eta is known to be 0 before tracing."""
        return is_noisy(self.eta)

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"] | None,
    ) -> Carry:
        """Song 2020, eq. 12: x' = alpha' x0 + sqrt(sigma'^2 - std^2) eps + std noise."""
        prediction = denoise(carry.x, level)
        down, std = ancestral_step(level, next_level, self.eta)
        x = ddim_update(carry.x, prediction, level, down)
        return Carry(x=x if noise is None else x + std * noise, x0=prediction.x0)


@dataclasses.dataclass(frozen=True)
class DDPM(MemorylessSolver):
    """Ancestral sampling, Ho 2020 (arXiv:2006.11239), eq. 6, 7 and 11, for any list of levels.

    `variance` is "beta_tilde", the posterior's, right for data that is a point; "beta", the
    forward step's, right for data that is standard normal (Ho 2020, section 3.2); or "learned",
    between them as the model says (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15). The step to
    the final level returns the mean (algorithm 2). Where variance explodes, "beta_tilde" is
    score_sde's ancestral predictor; where it is preserved, "beta" is. Raises ValueError for
    another variance, and in `step` where the model predicts none for "learned".
    """

    variance: Variance = "beta_tilde"
    order, stochastic = None, True

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise ValueError(
                f"variance is {self.variance!r}; it must be one of {get_args(Variance)}"
            )

    def step(
        self,
        carry: Carry,
        level: Level,
        next_level: Level,
        denoise: Denoise,
        noise: Float32[Array, "b *d"],
    ) -> Carry:
        """Ho 2020, eq. 6 and 7 with alpha_t and beta_t those of the whole stride."""
        x0, _, share = denoise(carry.x, level)
        ratio, beta = forward_step(level, next_level)
        to_next = (next_level.sigma / level.sigma) ** 2
        mean = ratio * to_next * carry.x + next_level.alpha * beta / level.sigma**2 * x0
        std = jnp.where(next_level.final, 0.0, self._std(beta, to_next, share))
        return Carry(x=mean + std * noise, x0=x0)

    def _std(
        self,
        beta: Float32[Array, ""],
        to_next: Float32[Array, ""],
        share: Float[Array, "b *d"] | None,
    ) -> Float32[Array, "*bd"]:
        match self.variance:
            case "beta_tilde":
                return jnp.sqrt(beta * to_next)
            case "beta":
                return jnp.sqrt(beta)
        if share is None:
            raise ValueError(
                "this model does not predict a variance, so that variance 'learned' has none; "
                "choose 'beta' or 'beta_tilde'"
            )
        # beta_tilde is beta to_next; between them in the logarithm is a power of to_next.
        return jnp.sqrt(beta * to_next ** (1 - share))


@dataclasses.dataclass(frozen=True)
class LCM(MemorylessSolver):
    """Multistep consistency sampling, Luo 2023 (arXiv:2310.04378), algorithm 3, for distilled nets.

    The boundary condition f = c_skip x + c_out x0 (eq. 9) has the constants of the authors' code:
    with t the timestep times 10 and sigma_data 1/2, c_skip = sigma_data^2 / (t^2 + sigma_data^2)
    and c_out = t / sqrt(t^2 + sigma_data^2), which leave x0 alone but at the first few timesteps.
    Only discrete processes have such timesteps.
    """

    order, stochastic = None, True

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
