"""Noise schedules in float64 on the host, and the timesteps that a sampler visits."""

import dataclasses
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64, Num

ScheduleKind = Literal["linear", "scaled_linear", "cosine"]
Spacing = Literal["leading", "trailing", "linspace", "quad", "compvis"]


def betas(
    kind: ScheduleKind, num_timesteps: int, start: float = 0.00085, end: float = 0.012
) -> Float64[np.ndarray, "t"]:
    """The variance that each of `num_timesteps` steps adds.

    linear: Ho 2020 (arXiv:2006.11239), section 4; CompVis' code calls it "sqrt_linear".
    scaled_linear: linear in sqrt(beta), Rombach 2022 (arXiv:2112.10752); there called "linear".
    cosine: Nichol & Dhariwal 2021 (arXiv:2102.09672), eq. 17, betas capped at 0.999; its ends are
    part of its definition, so `start` and `end` play no part.

    Raises ValueError for an unknown kind, fewer than one step, or ends that do not satisfy
    0 < start <= end < 1.
    """
    if num_timesteps < 1:
        raise ValueError(f"num_timesteps is {num_timesteps}; it must be 1 or more")
    if kind != "cosine" and not 0 < start <= end < 1:
        raise ValueError(f"beta start {start} and end {end} must satisfy 0 < start <= end < 1")
    match kind:
        case "linear":
            return np.linspace(start, end, num_timesteps, dtype=np.float64)
        case "scaled_linear":
            return np.linspace(start**0.5, end**0.5, num_timesteps, dtype=np.float64) ** 2
        case "cosine":
            phase = (np.arange(num_timesteps + 1) / num_timesteps + 0.008) / 1.008
            f = np.cos(phase * np.pi / 2) ** 2
            return np.minimum(1 - f[1:] / f[:-1], 0.999)
    raise ValueError(f"schedule is {kind!r}; it must be one of {get_args(ScheduleKind)}")


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A discrete variance-preserving schedule: x_t = alpha[t] x0 + sigma[t] eps, t in 0..T-1.

    `alpha_bar` is the product of (1 - beta) up to and including t (Ho 2020, eq. 4), float64. It
    must fall strictly inside (0, 1), or ValueError is raised; it is copied and made read-only.
    """

    alpha_bar: Float64[np.ndarray, "t"]

    def __post_init__(self) -> None:
        alpha_bar = np.array(self.alpha_bar, dtype=np.float64)
        if alpha_bar.ndim != 1 or alpha_bar.size == 0:
            raise ValueError(f"alpha_bar has shape {alpha_bar.shape}; it must be [t] with t >= 1")
        if not np.all((alpha_bar > 0) & (alpha_bar < 1)):
            bad = int(np.argmin((alpha_bar > 0) & (alpha_bar < 1)))
            raise ValueError(f"alpha_bar[{bad}] is {alpha_bar[bad]}; it must lie inside (0, 1)")
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
        """sigma / alpha, the `sigma` of Karras 2022 (arXiv:2206.00364)."""
        return np.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    def noise_to_signal_at(self, timesteps: Num[np.ndarray, "s"]) -> Float64[np.ndarray, "s"]:
        """`noise_to_signal` at any timesteps in 0..T-1, linear between neighbours.

        As in diffusers. k-diffusion is linear in its logarithm, which on Stable Diffusion's
        schedule is up to 1.5% less between timesteps 0 and 1, 0.01% at 20 and ever less beyond.
        """
        return np.interp(timesteps, np.arange(self.num_timesteps), self.noise_to_signal)

    def timesteps_of(self, noise_to_signal: Float64[np.ndarray, "s"]) -> Float64[np.ndarray, "s"]:
        """The timesteps, whole or not, of given ratios; linear in their logarithm."""
        grid = np.arange(self.num_timesteps, dtype=np.float64)
        return np.interp(np.log(noise_to_signal), np.log(self.noise_to_signal), grid)

    @property
    def snr(self) -> Float64[np.ndarray, "t"]:
        """Signal-to-noise ratio alpha^2 / sigma^2 (Kingma 2021, arXiv:2107.00630, eq. 2)."""
        return self.alpha_bar / (1 - self.alpha_bar)


def karras(low: float, high: float, steps: int, rho: float = 7.0) -> Float64[np.ndarray, "s"]:
    """`steps` noise-to-signal ratios from `high` down to `low` (Karras 2022, eq. 5).

    A single one is `high`.
    """
    ramp = np.linspace(0, 1, steps)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def spacing(
    kind: Spacing, num_timesteps: int, steps: int
) -> Int64[np.ndarray, "s"] | Float64[np.ndarray, "s"]:
    """Which timesteps a sampler of `steps` steps visits: ascending, distinct, in 0..T-1.

    leading: equal strides from 1 up; 50 of 1000 are 1, 21, ..., 981. Strides that are not whole
        are rounded down place by place, so that the range is always covered. Only steps == T
        begins at 0, there being no other choice.
    trailing: equal strides down from T - 1 (Lin 2024, arXiv:2305.08891, table 2).
    linspace: from 0 to T - 1, both included, evenly and so in fractions; a single step is T - 1.
    quad: squares of an even grid up to 0.8 T, plus 1 (Song 2020, arXiv:2010.02502, appendix D.2,
        with CompVis' constants); where squares coincide they are moved apart by 1. A single step
        is the upper end.
    compvis: the original's `range(0, T, T // steps) + 1` with the length it happens to have
        (30 asked of 1000 give 31).

    Every kind but compvis gives exactly `steps`. Raises ValueError for an unknown kind, for steps
    outside 1..T, and for a compvis list that leaves the schedule (3 of 1000 end on 1000).
    """
    total = num_timesteps
    if not 1 <= steps <= total:
        raise ValueError(f"steps is {steps}; it must lie in 1..{total}, the schedule's length")
    place = np.arange(steps, dtype=np.int64)
    match kind:
        case "leading":
            return place * total // steps + (1 if steps < total else 0)
        case "trailing":
            return (np.round(total - place * (total / steps)) - 1).astype(np.int64)[::-1].copy()
        case "linspace":
            return np.linspace(0, total - 1, steps) if steps > 1 else np.array([total - 1.0])
        case "quad":
            top = np.sqrt(0.8 * total)
            grid = np.linspace(0, top, steps) if steps > 1 else np.array([top])
            times = (grid**2).astype(np.int64) + 1
            times = np.maximum.accumulate(times - place) + place  # apart by 1 at least
            return np.minimum(times, total - steps + place)
        case "compvis":
            times = np.arange(0, total, total // steps, dtype=np.int64) + 1
            if times[-1] >= total:
                raise ValueError(
                    f"compvis spacing of {steps} steps ends on timestep {times[-1]}, beyond the "
                    f"schedule's last, {total - 1}; choose other steps or spacing 'leading'"
                )
            return times
    raise ValueError(f"spacing is {kind!r}; it must be one of {get_args(Spacing)}")
