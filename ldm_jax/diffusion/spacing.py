"""Which timesteps, or which noise-to-signal ratios, a sampler of so many steps visits."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

from ldm_jax.core.names import PublishedSpacing, TimestepSpacing

Grid = Literal["timesteps", "levels", "intervals"]
"""How a family of samplers counts places along the schedule; see `spacing`."""

ALIGN_YOUR_STEPS: dict[PublishedSpacing, tuple[int, ...]] = {
    "ays_sd15": (999, 850, 736, 645, 545, 455, 343, 233, 124, 24),
    "ays_sdxl": (999, 845, 730, 587, 443, 310, 193, 116, 53, 13),
}
"""Timesteps of 10 steps for Stable Diffusion 1.5 and XL, whose schedule is scaled_linear from
0.00085 to 0.012 in 1000: Sabour 2024 (arXiv:2404.14507), as its authors' page gives them."""


def spacing(
    kind: TimestepSpacing,
    num_timesteps: int,
    steps: int,
    grid: Grid = "timesteps",
    offset: int = 1,
) -> Int64[np.ndarray, "s"] | Float64[np.ndarray, "s"]:
    """Which timesteps a sampler of `steps` steps visits: ascending, distinct, in 0..T-1.

    leading: multiples of the whole stride T // steps, plus `offset`; 30 of 1000 are 1, 34, ...,
        958, which leaves the noisiest out.
    trailing: equal strides down from T - 1, rounded (Lin 2024, arXiv:2305.08891, table 2).
    linspace: evenly from 0 to T - 1, both included; a single step is 0.
    quad: squares of an even grid up to 0.8 T, plus 1 (Song 2020, arXiv:2010.02502, appendix D.2,
        with CompVis' constants); where squares coincide they are moved apart by 1. A single step
        is the upper end.
    ddim_uniform: CompVis' own `range(0, T, T // steps) + 1`, with the length that it happens to
        have: 30 of 1000 are the 31 numbers 1, 34, ..., 991.
    guided_uniform: multiples of the smallest whole stride that gives `steps`, from 0 up; "ddimN"
        of IDDPM's and guided-diffusion's respacing. A single step would be 0, all but clean.

    The first three are diffusers' rules, whose schedulers count places in three ways (`grid`):
    timesteps: `steps` places, rounded to whole timesteps (DDIM, DDPM, PNDM).
    levels: the same, but linspace keeps its fractions, as every noise level is as good (Euler,
        Heun and the others that come from k-diffusion).
    intervals: `steps` + 1 places whose ends are those of `steps` intervals, all but the lowest
        (DPM-Solver, UniPC, DEIS); trailing is as ever.
    Where these lists visit a timestep twice, or one outside 0..T-1, they are moved apart by 1 and
    into the schedule; that is at T steps, and at T - 1 with `intervals` and an `offset`.

    Every kind but ddim_uniform gives exactly `steps`. Raises ValueError for an unknown kind, for
    steps outside 1..T, for an offset outside 0..T-1, for a ddim_uniform list that leaves
    the schedule (3 of 1000 end on 1000), and where guided_uniform has no such stride.
    """
    total = num_timesteps
    if not 1 <= steps <= total:
        raise ValueError(f"steps is {steps}; it must lie in 1..{total}, the schedule's length")
    if not 0 <= offset < total:
        raise ValueError(f"offset is {offset}; it must lie in 0..{total - 1}, the timesteps")
    place = np.arange(steps, dtype=np.int64)
    left_out = int(grid == "intervals")
    match kind:
        case "leading":
            stride = total // (steps + left_out)
            return _distinct((place + left_out) * stride + offset, total)
        case "trailing":
            # A running difference, whose rounding decides ties as in diffusers; and one place
            # more at times, which would be -1.
            places = np.arange(total, 0, -total / steps)[:steps]
            return _distinct(np.round(places[::-1]).astype(np.int64) - 1, total)
        case "linspace":
            places = np.linspace(0, total - 1, steps + left_out)[left_out:]
            if grid == "levels":
                return places
            return _distinct(np.round(places).astype(np.int64), total)
        case "quad":
            top = np.sqrt(0.8 * total)
            roots = np.linspace(0, top, steps) if steps > 1 else np.array([top])
            return _distinct((roots**2).astype(np.int64) + 1, total)
        case "ddim_uniform":
            if not has_ddim_uniform(total, steps):
                raise ValueError(
                    f"ddim_uniform spacing of {steps} steps ends on timestep {total}, beyond the "
                    f"schedule's last, {total - 1}; choose other steps or spacing 'leading'"
                )
            return np.arange(0, total, total // steps, dtype=np.int64) + 1
        case "guided_uniform":
            stride = -(-total // steps)
            if -(-total // stride) != steps or steps == 1 < total:
                raise ValueError(
                    f"no whole stride through {total} timesteps gives {steps} steps, as spacing "
                    "'guided_uniform' wants; choose other steps or spacing 'leading'"
                )
            return place * stride
    raise ValueError(f"spacing is {kind!r}; it must be one of {get_args(TimestepSpacing)}")


def has_ddim_uniform(num_timesteps: int, steps: int) -> bool:
    """Whether "ddim_uniform" of so many steps stays in the schedule; it leaves it by 1, or not."""
    inside = 1 <= steps <= num_timesteps
    return inside and (num_timesteps - 1) % (num_timesteps // steps) != 0


def _distinct(times: Int64[np.ndarray, "s"], total: int) -> Int64[np.ndarray, "s"]:
    """Ascending `times`, moved as little up, and then down, as makes them distinct in 0..T-1."""
    place = np.arange(times.size, dtype=np.int64)
    apart = np.maximum.accumulate(times - place) + place
    return np.minimum(apart, total - times.size + place)


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
        # A running sum, whose rounding decides ties as it does in the published lists.
        stride = (length - 1) / max(count - 1, 1)
        places = np.cumsum(np.append(0.0, np.full(count - 1, stride)))
        found.append(start + np.round(places).astype(np.int64))
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
