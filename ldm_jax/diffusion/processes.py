"""Processes in continuous time: what noise is added, and how fast, in closed form.

With f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2 the equation dx = f x dt + g dw
has the marginals x_t = alpha x0 + sigma eps (Song 2021, arXiv:2011.13456, section 3; Kingma 2021,
arXiv:2107.00630, appendix). Every method works on NumPy's arrays and on JAX's.
"""

import dataclasses
import math

import jax.scipy.special
import numpy as np
import scipy.special

from ldm_jax.core.typing import Scales, Times
from ldm_jax.diffusion.arrays import as_float, numbers

NETWORK_SCALE = 999.0
"""What the end of a process in [0, 1] is told a network as: the last of a thousand timesteps."""


@dataclasses.dataclass(frozen=True)
class _LinearBeta:
    """What VP and sub-VP share: beta(t) rises evenly from `beta_min` to `beta_max` in [0, 1]."""

    beta_min: float | int = 0.1
    beta_max: float | int = 20.0
    t_min: float | int = 1e-3
    t_max: float | int = 1.0

    def __post_init__(self) -> None:
        _require(0 < self.beta_min <= self.beta_max, self, "0 < beta_min <= beta_max")
        _require(0 < self.t_min < self.t_max <= 1, self, "0 < t_min < t_max <= 1")

    def beta_at(self, t: Times) -> Scales:
        """The rate at which noise is added."""
        t = as_float(t)
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha_at(self, t: Times) -> Scales:
        """-1/2 of the integral of beta from 0 to t (Song 2021, eq. 29)."""
        t = as_float(t)
        return -(t**2) / 4 * (self.beta_max - self.beta_min) - t / 2 * self.beta_min

    def alpha_at(self, t: Times) -> Scales:
        return numbers(t).exp(self.log_alpha_at(t))

    def drift_at(self, t: Times) -> Scales:
        return -self.beta_at(t) / 2

    def time_at(self, u: Times) -> Scales:
        """Uniform between the ends."""
        return _between(u, self.t_min, self.t_max)

    def _time_of_log_alpha(self, log_alpha: Times) -> Scales:
        """The root of `log_alpha_at`, a square in t, without cancellation; within the ends."""
        rise, half = self.beta_max - self.beta_min, self.beta_min / 2
        xp = numbers(log_alpha)
        t = -2 * log_alpha / (half + xp.sqrt(half**2 - rise * log_alpha))
        return xp.clip(t, self.t_min, self.t_max)

    def network_time(self, t: Times) -> Scales:
        """999 t, as score_sde has it."""
        return as_float(t) * NETWORK_SCALE


@dataclasses.dataclass(frozen=True)
class VP(_LinearBeta):
    """Variance preserving, DDPM in the limit of many steps: Song 2021, eq. 11, 32 and 33.

    Raises ValueError unless 0 < beta_min <= beta_max and 0 < t_min < t_max <= 1.
    """

    def sigma_at(self, t: Times) -> Scales:
        xp = numbers(t)
        return xp.sqrt(-xp.expm1(2 * self.log_alpha_at(t)))

    def diffusion_at(self, t: Times) -> Scales:
        return numbers(t).sqrt(self.beta_at(t))

    def time_of(self, noise_to_signal: Times) -> Scales:
        """With alpha^2 = 1 / (1 + ratio^2)."""
        ratio = as_float(noise_to_signal)
        return self._time_of_log_alpha(-0.5 * numbers(ratio).log1p(ratio**2))


@dataclasses.dataclass(frozen=True)
class SubVP(_LinearBeta):
    """VP's mean with less noise, sigma = 1 - alpha^2: Song 2021, eq. 12 and 29.

    Raises ValueError unless 0 < beta_min <= beta_max and 0 < t_min < t_max <= 1.
    """

    def sigma_at(self, t: Times) -> Scales:
        return -numbers(t).expm1(2 * self.log_alpha_at(t))

    def diffusion_at(self, t: Times) -> Scales:
        xp = numbers(t)
        return xp.sqrt(-self.beta_at(t) * xp.expm1(4 * self.log_alpha_at(t)))

    def time_of(self, noise_to_signal: Times) -> Scales:
        """With 1 / alpha - alpha = ratio, so that log alpha = -arcsinh(ratio / 2)."""
        ratio = as_float(noise_to_signal)
        return self._time_of_log_alpha(-numbers(ratio).arcsinh(ratio / 2))


@dataclasses.dataclass(frozen=True)
class VE:
    """Variance exploding: sigma = sigma_min (sigma_max / sigma_min)^t (Song 2021, eq. 9 and 30).

    Raises ValueError unless 0 < sigma_min < sigma_max and 0 < t_min < t_max <= 1.
    """

    sigma_min: float | int = 0.01
    sigma_max: float | int = 50.0
    t_min: float | int = 1e-5
    t_max: float | int = 1.0

    def __post_init__(self) -> None:
        _require(0 < self.sigma_min < self.sigma_max, self, "0 < sigma_min < sigma_max")
        _require(0 < self.t_min < self.t_max <= 1, self, "0 < t_min < t_max <= 1")

    def alpha_at(self, t: Times) -> Scales:
        """1."""
        return numbers(t).ones_like(as_float(t))

    def sigma_at(self, t: Times) -> Scales:
        return self.sigma_min * numbers(t).exp(as_float(t) * self._log_range)

    def drift_at(self, t: Times) -> Scales:
        """0."""
        return numbers(t).zeros_like(as_float(t))

    def diffusion_at(self, t: Times) -> Scales:
        return self.sigma_at(t) * math.sqrt(2 * self._log_range)

    def time_of(self, noise_to_signal: Times) -> Scales:
        """log(sigma / sigma_min) / log(sigma_max / sigma_min)."""
        xp = numbers(noise_to_signal)
        t = xp.log(as_float(noise_to_signal) / self.sigma_min) / self._log_range
        return xp.clip(t, self.t_min, self.t_max)

    def time_at(self, u: Times) -> Scales:
        """Uniform between the ends."""
        return _between(u, self.t_min, self.t_max)

    def network_time(self, t: Times) -> Scales:
        """999 t, which is linear in log sigma.

        score_sde's network takes random Fourier features of log sigma; sinusoids are for numbers
        up to some thousand.
        """
        return as_float(t) * NETWORK_SCALE

    @property
    def _log_range(self) -> float:
        return math.log(self.sigma_max / self.sigma_min)


@dataclasses.dataclass(frozen=True)
class EDM:
    """Time is the noise itself, sigma(t) = t, alpha = 1: Karras 2022 (arXiv:2206.00364), table 1.

    Networks are trained at log-normal noise, exp(N(p_mean, p_std^2)). Raises ValueError unless
    0 < t_min < t_max and p_std > 0.
    """

    t_min: float | int = 0.002
    t_max: float | int = 80.0
    p_mean: float | int = -1.2
    p_std: float | int = 1.2

    def __post_init__(self) -> None:
        _require(0 < self.t_min < self.t_max, self, "0 < t_min < t_max")
        _require(self.p_std > 0, self, "p_std > 0")

    def alpha_at(self, t: Times) -> Scales:
        """1."""
        return numbers(t).ones_like(as_float(t))

    def sigma_at(self, t: Times) -> Scales:
        """t."""
        return as_float(t)

    def drift_at(self, t: Times) -> Scales:
        """0."""
        return numbers(t).zeros_like(as_float(t))

    def diffusion_at(self, t: Times) -> Scales:
        return numbers(t).sqrt(2 * as_float(t))

    def time_of(self, noise_to_signal: Times) -> Scales:
        """The ratio itself."""
        return numbers(noise_to_signal).clip(as_float(noise_to_signal), self.t_min, self.t_max)

    def time_at(self, u: Times) -> Scales:
        """The quantile `u` of the log-normal; at most some 5 standard deviations from its mean."""
        xp = numbers(u)
        u = xp.clip(as_float(u), 2.0**-23, 1 - 2.0**-23)
        ndtri = scipy.special.ndtri if xp is np else jax.scipy.special.ndtri
        return xp.exp(self.p_mean + self.p_std * ndtri(u))

    def network_time(self, t: Times) -> Scales:
        """250 log(sigma): c_noise of Karras 2022 times 1000, from -1554 to 1096 at its ends."""
        return 250 * numbers(t).log(as_float(t))


@dataclasses.dataclass(frozen=True)
class RectifiedFlow:
    """The straight line from data to noise, alpha = 1 - t, sigma = t: Liu 2022 (arXiv:2209.03003).

    Its velocity dx/dt is eps - x0. At t_max = 1 nothing of the data is left. `shift` over 1 moves
    time towards noise, as large pictures want (Esser 2024, arXiv:2403.03206, eq. 23): both the
    times of training and evenly spaced ones of sampling become `shifted`.

    Raises ValueError unless 0 < t_min < t_max <= 1 and shift > 0.
    """

    shift: float | int = 1.0
    t_min: float | int = 1e-3
    t_max: float | int = 1.0

    def __post_init__(self) -> None:
        _require(0 < self.t_min < self.t_max <= 1, self, "0 < t_min < t_max <= 1")
        _require(self.shift > 0, self, "shift > 0")

    def alpha_at(self, t: Times) -> Scales:
        return 1 - as_float(t)

    def sigma_at(self, t: Times) -> Scales:
        return as_float(t)

    def drift_at(self, t: Times) -> Scales:
        """-1 / (1 - t), which has no bound at t = 1."""
        return -1 / (1 - as_float(t))

    def diffusion_at(self, t: Times) -> Scales:
        """sqrt(2 t / (1 - t)), which has no bound at t = 1."""
        t = as_float(t)
        return numbers(t).sqrt(2 * t / (1 - t))

    def time_of(self, noise_to_signal: Times) -> Scales:
        """ratio / (1 + ratio)."""
        ratio = as_float(noise_to_signal)
        return numbers(ratio).clip(ratio / (1 + ratio), self.t_min, self.t_max)

    def shifted(self, t: Times) -> Scales:
        """The time whose sigma / alpha is `shift` times that of `t`."""
        t = as_float(t)
        return self.shift * t / (1 + (self.shift - 1) * t)

    @property
    def even_ends(self) -> tuple[float, float]:
        """The times that `shifted` brings to t_min and t_max."""
        low, high = (t / (self.shift + (1 - self.shift) * t) for t in (self.t_min, self.t_max))
        return low, high

    def time_at(self, u: Times) -> Scales:
        """Uniform before it is `shifted`, so that it lies between the ends after."""
        t = self.shifted(_between(u, *self.even_ends))
        return numbers(t).clip(t, self.t_min, self.t_max)  # which rounding may leave

    def network_time(self, t: Times) -> Scales:
        """1000 t, as Stable Diffusion 3 has it."""
        return as_float(t) * 1000


def _between(u: Times, low: float, high: float) -> Scales:
    return low + as_float(u) * (high - low)


def _require(ok: bool, process: object, allowed: str) -> None:
    if not ok:
        raise ValueError(f"{process} must satisfy {allowed}")
