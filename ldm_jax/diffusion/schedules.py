"""Discrete noise schedules: betas, and the process in T steps that they make."""

import dataclasses
from typing import get_args

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Num

from ldm_jax.core.names import ScheduleKind
from ldm_jax.core.typing import Scales, Times
from ldm_jax.diffusion.arrays import as_float, numbers

ENDLESS = ("sqrt", "cosine", "sigmoid")
"""The schedules that are defined by alpha_bar, so that `start` and `end` play no part."""
MAX_BETA = 0.999


def betas(
    kind: ScheduleKind, num_timesteps: int, start: float = 0.00085, end: float = 0.012
) -> Float64[np.ndarray, "t"]:
    """The variance that each of `num_timesteps` steps adds.

    linear: Ho 2020 (arXiv:2006.11239), section 4; CompVis' code calls it "sqrt_linear".
    scaled_linear: linear in sqrt(beta), Rombach 2022 (arXiv:2112.10752); there called "linear".
    sigmoid_betas: a sigmoid of -6 to 6 between the ends, as GeoDiff (Xu 2022, arXiv:2203.02923);
    in diffusers "sigmoid".

    Others are given by alpha_bar at u = t / T, with betas capped at 0.999; `start` and `end` play
    no part in them:
    sqrt: 1 - sqrt(u + 0.0001), Li 2022 (arXiv:2205.14217), appendix A.
    cosine: cos^2((u + 0.008) / 1.008 pi / 2), Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17.
    sigmoid: Jabri 2022 (arXiv:2212.11972), `sigmoid_alpha_bar` with its start -3, end 3, tau 1.

    Raises ValueError for an unknown kind, fewer than one step, or ends that do not satisfy
    0 < start <= end < 1.
    """
    if num_timesteps < 1:
        raise ValueError(f"num_timesteps is {num_timesteps}; it must be 1 or more")
    if kind not in ENDLESS and not 0 < start <= end < 1:
        raise ValueError(f"beta start {start} and end {end} must satisfy 0 < start <= end < 1")
    u = np.arange(num_timesteps + 1) / num_timesteps
    match kind:
        case "linear":
            return np.linspace(start, end, num_timesteps, dtype=np.float64)
        case "scaled_linear":
            return np.linspace(start**0.5, end**0.5, num_timesteps, dtype=np.float64) ** 2
        case "sigmoid_betas":
            ramp = np.linspace(-6, 6, num_timesteps, dtype=np.float64)
            return start + (end - start) / (1 + np.exp(-ramp))
        case "sqrt":
            return _capped(np.maximum(1 - np.sqrt(u + 0.0001), 0.0))
        case "cosine":
            return _capped(np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2)
        case "sigmoid":
            return _capped(sigmoid_alpha_bar(u))
    raise ValueError(f"schedule is {kind!r}; it must be one of {get_args(ScheduleKind)}")


def sigmoid_alpha_bar(
    u: Float64[np.ndarray, "t"], start: float | int = -3, end: float | int = 3, tau: float = 1.0
) -> Float64[np.ndarray, "t"]:
    """alpha_bar at u in 0..1 that falls from 1 to 0 as a sigmoid from `start` / `tau` to `end` /
    `tau`: Jabri 2022 (arXiv:2212.11972), algorithm 1; also Chen 2023 (arXiv:2301.10972).
    """

    def sigmoid(x):
        return 1 / (1 + np.exp(-x / tau))

    low, high = sigmoid(start), sigmoid(end)
    return (high - sigmoid(start + u * (end - start))) / (high - low)


def zero_terminal_snr(alpha_bar: Float64[np.ndarray, "t"]) -> Float64[np.ndarray, "t"]:
    """`alpha_bar` shifted and scaled in its root so that it ends in exactly 0 and starts where it
    did: Lin 2024 (arXiv:2305.08891), algorithm 1. Raises ValueError for fewer than 2 timesteps.
    """
    if alpha_bar.size < 2:
        raise ValueError("zero terminal SNR needs 2 timesteps or more, the last of which is noise")
    root = np.sqrt(alpha_bar)
    return ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2


def shifted(alpha_bar: Float64[np.ndarray, "t"], shift: float | int) -> Float64[np.ndarray, "t"]:
    """`alpha_bar` with every noise-to-signal ratio sigma / alpha multiplied by `shift`.

    Hoogeboom 2023 (arXiv:2301.11093), eq. 3: for pictures of side d whose schedule was made for
    side d0, shift = d / d0, which adds 2 log(d0 / d) to log SNR. Raises ValueError unless it is
    positive.
    """
    if not shift > 0:
        raise ValueError(f"shift is {shift}; it must be greater than 0")
    return alpha_bar / (alpha_bar + shift**2 * (1 - alpha_bar))


def _capped(alpha_bar: Float64[np.ndarray, "t1"]) -> Float64[np.ndarray, "t"]:
    """The betas, at most 0.999, between T + 1 values of alpha_bar, the first at no step."""
    return np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], MAX_BETA)


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete variance-preserving process: x_t = alpha[t] x0 + sigma[t] eps, t in 0..T-1.

    `alpha_bar` is the product of (1 - beta) up to and including t (Ho 2020, eq. 4), float64. It
    must fall strictly inside (0, 1), but for the last, which may be exactly 0 (zero terminal SNR),
    or ValueError is raised; it is copied and made read-only.

    As a `Process` its time is t, and between timesteps log(sigma / alpha) is linear; only on the
    way to an alpha of 0 is it alpha that is. `drift_at` and `diffusion_at` are those of just this
    curve, at a timestep those of the way to it from below: the limit in which a step of DDPM is
    many small ones.
    """

    alpha_bar: Float64[np.ndarray, "t"]

    def __post_init__(self) -> None:
        alpha_bar = np.array(self.alpha_bar, dtype=np.float64)
        if alpha_bar.ndim != 1 or alpha_bar.size == 0:
            raise ValueError(f"alpha_bar has shape {alpha_bar.shape}; it must be [t] with t >= 1")
        inside = (alpha_bar > 0) & (alpha_bar < 1)
        inside[-1] |= alpha_bar.size > 1 and alpha_bar[-1] == 0
        if not np.all(inside):
            bad = int(np.argmin(inside))
            raise ValueError(
                f"alpha_bar[{bad}] is {alpha_bar[bad]}; it must lie inside (0, 1), the last of "
                "several in [0, 1)"
            )
        if not np.all(np.diff(alpha_bar) < 0):
            bad = int(np.argmin(np.diff(alpha_bar) < 0))
            raise ValueError(
                f"alpha_bar must fall with t, but alpha_bar[{bad}] is {alpha_bar[bad]} and "
                f"alpha_bar[{bad + 1}] is {alpha_bar[bad + 1]}"
            )
        alpha_bar.flags.writeable = False
        object.__setattr__(self, "alpha_bar", alpha_bar)

    @classmethod
    def create(
        cls, kind: ScheduleKind, num_timesteps: int, start: float = 0.00085, end: float = 0.012
    ) -> "NoiseSchedule":
        """The schedule of `betas(kind, num_timesteps, start, end)`; raises as that does."""
        return cls(np.cumprod(1 - betas(kind, num_timesteps, start, end)))

    @property
    def num_timesteps(self) -> int:
        """T: how many timesteps there are."""
        return self.alpha_bar.size

    @property
    def alpha(self) -> Float64[np.ndarray, "t"]:
        """Scale of the signal: sqrt(alpha_bar)."""
        return np.sqrt(self.alpha_bar)

    @property
    def sigma(self) -> Float64[np.ndarray, "t"]:
        """Standard deviation of the noise: sqrt(1 - alpha_bar)."""
        return np.sqrt(1 - self.alpha_bar)

    @property
    def noise_to_signal(self) -> Float64[np.ndarray, "t"]:
        """sigma / alpha, the `sigma` of Karras 2022 (arXiv:2206.00364); inf where alpha is 0."""
        with np.errstate(divide="ignore"):
            return np.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    @property
    def snr(self) -> Float64[np.ndarray, "t"]:
        """Signal-to-noise ratio alpha^2 / sigma^2 (Kingma 2021, arXiv:2107.00630, eq. 2)."""
        return self.alpha_bar / (1 - self.alpha_bar)

    @property
    def ends_in_noise(self) -> bool:
        """Whether nothing of the data is left at the last timestep: alpha_bar[T - 1] is 0."""
        return bool(self.alpha_bar[-1] == 0)

    def noise_to_signal_at(self, timesteps: Num[np.ndarray, "s"]) -> Float64[np.ndarray, "s"]:
        """`noise_to_signal` at any timesteps in 0..T-1, linear between neighbours.

        As in diffusers. k-diffusion and `alpha_at` are linear in its logarithm, which on Stable
        Diffusion's schedule is up to 1.5% less between timesteps 0 and 1, 0.01% at 20 and ever
        less beyond. On the way to an alpha of 0 it is that of `alpha_at`.
        """
        finite = self.num_timesteps - self.ends_in_noise
        ratios = np.interp(timesteps, np.arange(finite), self.noise_to_signal[:finite])
        last = timesteps > finite - 1
        with np.errstate(divide="ignore"):
            ratios[last] = self.sigma_at(timesteps[last]) / self.alpha_at(timesteps[last])
        return ratios

    # ------------------------------------------------------------------------------ as a Process

    @property
    def t_min(self) -> float:
        """0."""
        return 0.0

    @property
    def t_max(self) -> float:
        """T - 1."""
        return self.num_timesteps - 1.0

    def alpha_at(self, t: Times) -> Scales:
        """At any t in 0..T-1; exactly `alpha` at whole ones, up to rounding."""
        log_ratio, _, xp = self._log_ratio_at(t)
        alpha = xp.exp(-0.5 * xp.logaddexp(xp.zeros_like(log_ratio), 2 * log_ratio))
        return xp.where(self._at_end(t), self._alpha_at_end(t), alpha)

    def sigma_at(self, t: Times) -> Scales:
        """At any t in 0..T-1; exactly `sigma` at whole ones, up to rounding."""
        log_ratio, _, xp = self._log_ratio_at(t)
        sigma = xp.exp(-0.5 * xp.logaddexp(xp.zeros_like(log_ratio), -2 * log_ratio))
        return xp.where(self._at_end(t), xp.sqrt(1 - self._alpha_at_end(t) ** 2), sigma)

    def drift_at(self, t: Times) -> Scales:
        """f = -sigma^2 d log(sigma / alpha) / dt; -inf where alpha is 0."""
        _, slope, xp = self._log_ratio_at(t)
        drift = -(self.sigma_at(t) ** 2) * slope
        if not self.ends_in_noise:
            return drift
        # d log alpha / dt = -1 / (T - 1 - t), where alpha falls to 0 in a straight line.
        left = self.t_max - as_float(t)
        inside = xp.where(left > 0, left, xp.ones_like(left))
        end = xp.where(left > 0, -1 / inside, -xp.inf * xp.ones_like(left))
        return xp.where(self._at_end(t), end, drift)

    def diffusion_at(self, t: Times) -> Scales:
        """g = sqrt(-2 f), as variance is preserved."""
        drift = self.drift_at(t)
        return numbers(t).sqrt(-2 * drift)

    def time_at(self, u: Times) -> Scales:
        """floor(T u): every timestep as often."""
        xp = numbers(u)
        return xp.minimum(xp.floor(as_float(u) * self.num_timesteps), self.t_max)

    def time_of(self, noise_to_signal: Times) -> Scales:
        """The timesteps, whole or not, of given ratios; linear in their logarithm.

        Ratios beyond the first are counted as that, and so are those beyond the last finite one.
        """
        xp = numbers(noise_to_signal)
        finite = self.num_timesteps - self.ends_in_noise
        table = as_float(xp.asarray(np.log(self.noise_to_signal[:finite])))
        places = as_float(xp.arange(finite))
        return xp.interp(xp.log(as_float(noise_to_signal)), table, places)

    def network_time(self, t: Times) -> Scales:
        """t itself."""
        return as_float(t)

    def _log_ratio_at(self, t: Times):
        """log(sigma / alpha) at t, its slope just below t, and the module of t's numbers.

        Where alpha goes to 0 they are those of the last timestep where it has not.
        """
        xp = numbers(t)
        finite = self.num_timesteps - self.ends_in_noise
        table = np.log(self.noise_to_signal[:finite])
        slopes = np.diff(table, prepend=2 * table[0] - table[min(1, finite - 1)])
        if xp is jnp:
            table, slopes = jnp.asarray(table, jnp.float32), jnp.asarray(slopes, jnp.float32)
        t = as_float(t)
        above = xp.clip(xp.ceil(t), 0, finite - 1).astype(np.int32)
        # Between timesteps t - above is negative, and the slope that of the way to `above`.
        change = xp.minimum(t - above.astype(t.dtype), 0)
        return table[above] + change * slopes[above], slopes[above], xp

    def _at_end(self, t: Times):
        """Whether t lies on the way to an alpha of 0."""
        return (as_float(t) > self.num_timesteps - 2) & self.ends_in_noise

    def _alpha_at_end(self, t: Times) -> Scales:
        """alpha on the way to 0, in a straight line from the last timestep where it is not."""
        last = float(self.alpha[-2]) if self.ends_in_noise else 0.0
        xp = numbers(t)
        return last * xp.clip(self.t_max - as_float(t), 0.0, 1.0)
