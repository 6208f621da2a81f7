"""DDIM and DDPM: samplers that step from one noise level to the next by the posterior given x0.

The previous level always comes from the list of levels, so any list of timesteps is valid.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from ldm_jax.sampling.loop import move
from ldm_jax.typing import Denoise, Level

Variance = Literal["beta_tilde", "beta"]


class Carry(NamedTuple):
    """The examples at the level reached, and the last prediction of the clean ones."""

    x: Float32[Array, "b ..."]
    x0: Float32[Array, "b ..."]


class _Ancestral:
    """What solvers without memory of earlier steps share."""

    def visits(self, steps: int) -> Int[np.ndarray, "e"]:
        """Every level once."""
        return np.arange(steps + 1)

    def init(self, x: Float32[Array, "b *d"]) -> Carry:
        """The carry before the first step; nothing is predicted yet."""
        return Carry(x=x, x0=jnp.zeros_like(x))


@dataclasses.dataclass(frozen=True)
class DDIM(_Ancestral):
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

    eta: float | int | Float[Array, ""] = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.eta, float | int) and not self.eta >= 0:
            raise ValueError(f"eta is {self.eta}; it must be 0 or more")

    @property
    def stochastic(self) -> bool:
        """False only where eta is known to be 0 before tracing."""
        return not (isinstance(self.eta, float | int) and self.eta == 0)

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
        if not self.stochastic:
            x = move(carry.x, prediction, level, next_level.alpha, next_level.sigma)
            return Carry(x=x, x0=prediction.x0)
        _, variance = _transition(level, next_level)
        # eq. 16; never more than all the noise that the next level holds (eta > 1 could ask it).
        std = self.eta * jnp.sqrt(variance) * next_level.sigma / level.sigma
        std = jnp.where(next_level.final, 0.0, jnp.minimum(std, next_level.sigma))
        # Where std is all of sigma, rounding may leave less than nothing.
        direction = jnp.sqrt(jnp.maximum(next_level.sigma**2 - std**2, 0.0))
        x = move(carry.x, prediction, level, next_level.alpha, direction)
        return Carry(x=x + std * noise, x0=prediction.x0)


@dataclasses.dataclass(frozen=True)
class DDPM(_Ancestral):
    """Ancestral sampling, Ho 2020 (arXiv:2006.11239), eq. 6, 7 and 11, for any list of levels.

    `variance` is "beta_tilde", the posterior's, right for data that is a point, or "beta", the
    forward step's, right for data that is standard normal (Ho 2020, section 3.2). The step to the
    final level returns the mean (algorithm 2). Raises ValueError for another variance.
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
        x0, *_ = denoise(carry.x, level)
        ratio, beta = _transition(level, next_level)
        to_next = (next_level.sigma / level.sigma) ** 2
        mean = ratio * to_next * carry.x + next_level.alpha * beta / level.sigma**2 * x0
        variance = beta * to_next if self.variance == "beta_tilde" else beta
        std = jnp.where(next_level.final, 0.0, jnp.sqrt(variance))
        return Carry(x=mean + std * noise, x0=x0)


def _transition(level: Level, next_level: Level) -> tuple[Float32[Array, ""], Float32[Array, ""]]:
    """alpha and sigma^2 of the forward step next_level → level, x_t = alpha x_s + sigma eps.

    Kingma 2021 (arXiv:2107.00630), eq. 22 and 23. Where noise is preserved sigma^2 is the beta
    of the stride; written with sigma it keeps its precision in float32 at low noise, where
    1 - alpha^2 would cancel.
    """
    ratio = level.alpha / next_level.alpha
    return ratio, jnp.maximum(level.sigma**2 - (ratio * next_level.sigma) ** 2, 0.0)
