"""Which timesteps, or which noise-to-signal ratios, a sampler of so many steps visits."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

Timesteps = Literal["leading", "trailing", "linspace", "quad", "compvis", "ddim_uniform"]
"""Rules for timesteps 0..T-1."""
Ratios = Literal["karras", "exponential"]
"""Rules for noise-to-signal ratios."""
Published = Literal["ays_sd15", "ays_sdxl"]
"""Lists for schedules that are known."""

ALIGN_YOUR_STEPS: dict[Published, tuple[int, ...]] = {
    "ays_sd15": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24),
    "ays_sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
}
"""Timesteps of 10 steps for Stable Diffusion 1.5 and XL, whose schedule is scaled_linear from
0.00085 to 0.012 in 1000: Sabour 2024 (arXiv:2404.14507), as its authors' page gives them."""


def spacing(
    kind: Timesteps, num_timesteps: int, steps: int
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
    ddim_uniform: multiples of the smallest whole stride that gives `steps`, from 0 up; "ddimN" of
        IDDPM's and guided-diffusion's respacing. A single step would be 0, which is all but clean.

    Every kind but compvis gives exactly `steps`. Raises ValueError for an unknown kind, for steps
    outside 1..T, for a compvis list that leaves the schedule (3 of 1000 end on 1000), and where
    ddim_uniform has no such stride.
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
        case "ddim_uniform":
            stride = -(-total // steps)
            if -(-total // stride) != steps or steps == 1 < total:
                raise ValueError(
                    f"no whole stride through {total} timesteps gives {steps} steps, as spacing "
                    "'ddim_uniform' wants; choose other steps or spacing 'leading'"
                )
            return place * stride
    raise ValueError(f"spacing is {kind!r}; it must be one of {get_args(Timesteps)}")


def sections(num_timesteps: int, counts: tuple[int, ...]) -> Int64[np.ndarray, "s"]:
    """Ascending timesteps of so many steps in each of equal parts of the schedule.

    IDDPM's respacing (Nichol & Dhariwal 2021, arXiv:2102.09672, section 4): (10, 10, 15, 15)
    takes 10 from the first quarter, the least noisy, evenly and both its ends included; one alone
    is the part's first. Parts are longer by one, the first before others, where they must.

    Raises ValueError for no counts, a count below 1, and one larger than its part.
    """
    if not counts or min(counts) < 1:
        raise ValueError(f"sections are {counts}; they must be whole numbers from 1 on")
    size, longer = divmod(num_timesteps, len(counts))
    found, start = [], 0
    for i, count in enumerate(counts):
        length = size + (i < longer)
        if count > length:
            raise ValueError(
                f"sections are {counts}, but part {i + 1} of {num_timesteps} timesteps has only "
                f"{length}"
            )
        found.append(start + np.round(np.linspace(0, length - 1, count)).astype(np.int64))
        start += length
    return np.concatenate(found)


def karras(low: float, high: float, steps: int, rho: float = 7.0) -> Float64[np.ndarray, "s"]:
    """`steps` noise-to-signal ratios from `high` down to `low` (Karras 2022, arXiv:2206.00364,
    eq. 5). A single one is `high`.
    """
    ramp = np.linspace(0, 1, steps)
    return (high ** (1 / rho) + ramp * (low ** (1 / rho) - high ** (1 / rho))) ** rho


def exponential(low: float, high: float, steps: int) -> Float64[np.ndarray, "s"]:
    """`steps` ratios from `high` down to `low`, even in their logarithm; a single one is `high`.

    k-diffusion's "exponential"; what DPM-Solver (Lu 2022, arXiv:2206.00927, section 3.4) calls
    uniform in log SNR.
    """
    return np.exp(np.linspace(np.log(high), np.log(low), steps))


def log_linear(ratios: Float64[np.ndarray, "n"], count: int) -> Float64[np.ndarray, "s"]:
    """`count` ratios along the curve of falling `ratios`, both ends kept: linear in the logarithm.

    How lists of Align Your Steps are made longer or shorter (Sabour 2024, arXiv:2404.14507).
    """
    places = np.linspace(0, ratios.size - 1, count)
    return np.exp(np.interp(places, np.arange(ratios.size), np.log(ratios)))
