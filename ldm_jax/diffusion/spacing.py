"""Which timesteps, and which noise-to-signal ratios, a sampler visits."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int64

Spacing = Literal["leading", "trailing", "linspace", "quad", "compvis"]


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
