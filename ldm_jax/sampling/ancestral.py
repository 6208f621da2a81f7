"""DDIM and DDPM: samplers that step from one noise level to the next by the posterior given x0.

The previous level always comes from the list of levels, so any list of timesteps is valid.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

from ldm_jax.core.typing import Denoise, Level
from ldm_jax.sampling.moves import Eta, ancestral, check_eta, is_noisy, move, transition
from ldm_jax.sampling.once import Once

Variance = Literal["beta_tilde", "beta", "learned"]


class Carry(NamedTuple):
    """The examples at the level reached, and the last prediction of the clean ones."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]


class Memoryless(Once):
    """What solvers without memory of earlier steps share."""

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step; nothing is predicted yet."""
        return Carry(x=x, x0=jnp.zeros_like(x))


@dataclasses.dataclass(frozen=True)
class DDIM(Memoryless):
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
        """Song 2020, eq. 12."""
        prediction = denoise(carry.x, level)
        if noise is None:
            return Carry(move(carry.x, prediction, level, *next_level[1:3]), prediction.x0)
        kept, std = ancestral(level, next_level, self.eta)
        x = move(carry.x, prediction, level, next_level.alpha, kept)
        return Carry(x=x + std * noise, x0=prediction.x0)


@dataclasses.dataclass(frozen=True)
class DDPM(Memoryless):
    """Ancestral sampling, Ho 2020 (arXiv:2006.11239), eq. 6, 7 and 11, for any list of levels.

    `variance` is "beta_tilde", the posterior's, right for data that is a point; "beta", the
    forward step's, right for data that is standard normal (Ho 2020, section 3.2); or "learned",
    between them as the model says (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 15). The step to
    the final level returns the mean (algorithm 2). Where variance explodes, "beta_tilde" is
    score_sde's ancestral predictor; where it is preserved, "beta" is. Raises ValueError for
    another variance, and in `step` where the model predicts none for "learned".
    """

    variance: Variance = "beta_tilde"

    def __post_init__(self) -> None:
        if self.variance not in get_args(Variance):
            raise ValueError(
                f"variance is {self.variance!r}; it must be one of {get_args(Variance)}"
            )

    @property
    def stochastic(self) -> bool:
        """Always True."""
        return True

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
        ratio, beta = transition(level, next_level)
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
