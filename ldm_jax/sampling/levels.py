"""Noise levels that a sampler visits: made on the host in float64, stored in float32."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Num

from ldm_jax.core.names import (
    FinalAlphaBar,
    PublishedSpacing,
    RatioSpacing,
    Spacing,
)
from ldm_jax.core.typing import Level, Process, Solver
from ldm_jax.diffusion import spacing as spacings
from ldm_jax.diffusion.processes import RectifiedFlow
from ldm_jax.diffusion.schedules import NoiseSchedule

CONTINUOUS: tuple[Spacing, ...] = ("trailing", "linspace", "karras", "exponential")
"""The spacings that processes in continuous time have."""


def levels(
    process: Process,
    steps: int,
    spacing: Spacing = "leading",
    final_alpha_bar: FinalAlphaBar = "first",
    grid: spacings.Grid = "timesteps",
    offset: int = 1,
) -> Level:
    """The levels of `steps` steps, noisiest first, and the final one: arrays of steps + 1.

    Computed in float64, stored in float32. The final level is that of the process's first time,
    alpha_bar[0], for "first" (the convention of CompVis' DDIM and Stable Diffusion) or clean, at
    alpha 1 and sigma 0, for "one" (as in Ho 2020; what DDPM and k-diffusion want). A spacing that
    itself visits the first time spends its last step on standing still with "first".

    Discrete schedules have the timesteps of `spacing.spacing`, for the `grid` of the sampler and
    the model's `offset`; 1 is Stable Diffusion's. In continuous time "linspace" is
    even from t_max to t_min, both included, and "trailing" has equal strides down from t_max, of
    which the next would be 0; rectified flow then shifts them.

    "karras" and "exponential" space noise-to-signal ratios, not times, between the ends of the
    process, and then 0. "ays_sd15" and "ays_sdxl" are the lists of Align Your Steps; for other
    than 10 steps log-linear in the ratio between them. Times may then be fractions.

    Raises ValueError for an unknown spacing or `final_alpha_bar`, for steps and spacings that the
    process does not have, and for "karras" and "exponential" with "first", which would repeat the
    last level.
    """
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing is {spacing!r}; it must be one of {get_args(Spacing)}")
    most = process.num_timesteps if isinstance(process, NoiseSchedule) else None
    if steps < 1 or (most is not None and steps > most):
        allowed = "be 1 or more" if most is None else f"lie in 1..{most}, the schedule's length"
        raise ValueError(f"steps is {steps}; it must {allowed}")
    if spacing in get_args(RatioSpacing):
        return _by_ratio(process, steps, spacing, final_alpha_bar)
    if not isinstance(process, NoiseSchedule):
        return levels_at(process, _even(process, steps, spacing), final_alpha_bar)
    if spacing in get_args(PublishedSpacing):
        return _published(process, steps, spacing, final_alpha_bar)
    times = spacings.spacing(spacing, process.num_timesteps, steps, grid, offset)
    return levels_at(process, times[::-1], final_alpha_bar)


def levels_at(
    process: Process,
    times: Num[np.ndarray, "s"],
    final_alpha_bar: FinalAlphaBar = "first",
) -> Level:
    """The levels of any list of times, noisiest first, and the final one.

    Between timesteps of a discrete schedule sigma / alpha is linear, as in diffusers. Raises
    ValueError unless there is a time and they fall strictly within t_min..t_max, and for an
    unknown `final_alpha_bar`.
    """
    if final_alpha_bar not in get_args(FinalAlphaBar):
        raise ValueError(
            f"final_alpha_bar is {final_alpha_bar!r}; it must be one of {get_args(FinalAlphaBar)}"
        )
    times = np.asarray(times, np.float64)
    low, high = process.t_min, process.t_max
    inside = np.all((times >= low * (1 - 1e-9)) & (times <= high))  # as rounding may have it
    if times.size == 0 or not inside or not np.all(np.diff(times) < 0):
        raise ValueError(
            f"timesteps are {times}; they must fall strictly and lie in {low:g}..{high:g}"
        )
    if isinstance(process, NoiseSchedule):
        alpha, sigma = _scales(process.noise_to_signal_at(times))
    else:
        alpha, sigma = process.alpha_at(times), process.sigma_at(times)
    first = np.asarray(low)
    end = (1.0, 0.0, 0.0)
    if final_alpha_bar == "first":
        end = (float(process.alpha_at(first)), float(process.sigma_at(first)), float(low))
    return _levels(times, alpha, sigma, end)


def in_sections(
    process: Process, counts: tuple[int, ...], final_alpha_bar: FinalAlphaBar = "one"
) -> Level:
    """The levels of `spacing.sections`; raises ValueError as that does, and in continuous time."""
    if not isinstance(process, NoiseSchedule):
        raise ValueError(
            f"sections are {counts}, but only schedules of discrete timesteps have them; "
            f"{type(process).__name__} has spacings {CONTINUOUS}"
        )
    times = spacings.sections(process.num_timesteps, counts)
    return levels_at(process, times[::-1], final_alpha_bar)


def levels_of(process: Process, ratios: Num[np.ndarray, "s"]) -> Level:
    """The levels of a list of noise-to-signal ratios, falling, and the final one, clean.

    For published lists of sigmas. A last 0, which such lists often have, is the final level; a
    first that passes the process's largest by less than 0.1% is taken for that, as lists are
    rounded. Raises ValueError unless they fall strictly within the process.
    """
    ratios = np.asarray(ratios, np.float64)
    if ratios.size and ratios[-1] == 0:
        ratios = ratios[:-1]
    low, high = _ends(process)
    inside = np.all((ratios >= low * 0.999) & (ratios <= high * 1.001))
    if ratios.size == 0 or not inside or not np.all(np.diff(ratios) < 0):
        raise ValueError(
            f"sigmas are {ratios}; they must fall strictly and lie in {low:.5g}..{high:.5g}, the "
            "ratios of noise to signal that the model was trained at"
        )
    times = process.time_of(np.clip(ratios, low, high))
    return _levels(times, process.alpha_at(times), process.sigma_at(times))


def part(levels: Level, strength: float | int) -> Level:
    """The last `strength` (0 to 1) of the way through `levels`, for image-to-image.

    Of S steps min(int(S strength), S) are left, as in diffusers. The picture gets noise at the
    first level returned: `x = alpha * x0 + sigma * noise`. Strength 0 leaves the final level
    alone, where nothing is left to do. CompVis' script takes the noise of one level earlier, with
    as many steps.

    Raises ValueError for a strength outside 0..1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength is {strength}; it must lie in 0..1")
    steps = levels.timestep.shape[0] - 1
    return jax.tree.map(lambda values: values[steps - int(steps * strength) :], levels)


def inner_levels(solver: Solver, process: Process, levels: Level) -> Level:
    """`levels` with those that `solver` visits inside its steps, for `loop.sample`.

    Most solvers have none, and `levels` comes back as it is. On the host in float64, so that
    neither `levels` nor the solver's eta may be traced. Steps with no noise at their end or no
    signal at their beginning get none.

    Raises ValueError for levels of which one has more noise than the one before.
    """
    alpha, sigma = np.asarray(levels.alpha, np.float64), np.asarray(levels.sigma, np.float64)
    finite = (alpha[:-1] > 0) & (sigma[1:] > 0)
    ratio = sigma[:-1][finite] / alpha[:-1][finite]
    next_ratio = sigma[1:][finite] / alpha[1:][finite]
    rising = np.flatnonzero(next_ratio > ratio)
    if rising.size:
        raise ValueError(f"noise rises after level {rising[0]}; levels must be noisiest first")
    found = solver.inner_ratios(ratio, next_ratio)
    if not found.size:
        return levels
    times = np.asarray(process.time_of(found), np.float64)
    scale = np.asarray(process.alpha_at(times), np.float64)

    def merged(own: np.ndarray, inner: np.ndarray) -> np.ndarray:
        """`own`, with the rows of `inner` after each level that has them."""
        places = np.repeat(np.flatnonzero(finite) + 1, len(inner))
        return np.insert(own, places, inner.T.reshape(-1))

    new = Level(times, scale, found * scale, np.zeros(found.shape, bool))
    old = jax.tree.map(np.asarray, levels)
    return Level(
        *(jnp.asarray(merged(a, b.astype(a.dtype))) for a, b in zip(old, new, strict=True))
    )


def _by_ratio(
    process: Process, steps: int, spacing: RatioSpacing, final_alpha_bar: FinalAlphaBar
) -> Level:
    if final_alpha_bar != "one":
        raise ValueError(
            f"spacing {spacing!r} ends in sigma 0, so final_alpha_bar must be 'one', not "
            f"{final_alpha_bar!r}"
        )
    low, high = _ends(process)
    if not np.isfinite(high):
        raise ValueError(
            f"spacing {spacing!r} starts at the largest ratio of noise to signal, but this "
            "process ends in noise alone; choose 'trailing' or 'linspace'"
        )
    ratios = (spacings.karras if spacing == "karras" else spacings.exponential)(low, high, steps)
    times = process.time_of(ratios)
    return _levels(times, process.alpha_at(times), process.sigma_at(times))


def _published(
    schedule: NoiseSchedule, steps: int, spacing: PublishedSpacing, final: FinalAlphaBar
) -> Level:
    times = np.array(spacings.ALIGN_YOUR_STEPS[spacing])
    total = schedule.num_timesteps
    if total != 1000 or schedule.ends_in_noise:
        raise ValueError(
            f"spacing {spacing!r} is a list for schedules of 1000 timesteps that keep some signal; "
            f"this has {total}" + (" and ends in noise alone" if schedule.ends_in_noise else "")
        )
    if steps != times.size:
        ratios = schedule.noise_to_signal[np.append(times, 0)]
        times = schedule.time_of(spacings.log_linear(ratios, steps + 1)[:-1])
    return levels_at(schedule, times, final)


def _even(process: Process, steps: int, spacing: Spacing) -> Float64[np.ndarray, "s"]:
    """Falling times that are evenly spaced before any shift."""
    if spacing not in CONTINUOUS:
        raise ValueError(
            f"spacing is {spacing!r}, which only schedules of discrete timesteps have; "
            f"{type(process).__name__} has {CONTINUOUS}"
        )
    low, high = ends = process.t_min, process.t_max
    if isinstance(process, RectifiedFlow):
        low, high = process.even_ends
    if spacing == "linspace":
        times = np.linspace(high, low, steps)
    else:
        times = high * (1 - np.arange(steps) / steps)
    if isinstance(process, RectifiedFlow):
        times = np.clip(process.shifted(times), *ends)  # which rounding may leave
    return times


def _ends(process: Process) -> tuple[float, float]:
    """The smallest and the largest ratio of noise to signal; inf where nothing is left of it."""
    times = np.array([process.t_min, process.t_max], np.float64)
    with np.errstate(divide="ignore"):
        low, high = process.sigma_at(times) / process.alpha_at(times)
    return float(low), float(high)


def _scales(
    ratios: Float64[np.ndarray, "s"],
) -> tuple[Float64[np.ndarray, "s"], Float64[np.ndarray, "s"]]:
    """alpha and sigma of variance-preserving levels; 0 and 1 where the ratio is inf."""
    alpha = 1 / np.sqrt(1 + ratios**2)
    sigma = np.ones_like(alpha)
    np.multiply(ratios, alpha, out=sigma, where=alpha > 0)
    return alpha, sigma


def _levels(
    times: Float[np.ndarray, "s"],
    alpha: Float[np.ndarray, "s"],
    sigma: Float[np.ndarray, "s"],
    end: tuple[float, float, float] = (1.0, 0.0, 0.0),
) -> Level:
    """The levels and a final one, `end`: its alpha, sigma and time."""
    stored = [np.append(values, last).astype(np.float32) for values, last in
              zip((alpha, sigma, times), end, strict=True)]  # fmt: skip
    alpha, sigma, times = map(jnp.asarray, stored)
    return Level(times, alpha, sigma, final=jnp.asarray(np.arange(times.size) == times.size - 1))
