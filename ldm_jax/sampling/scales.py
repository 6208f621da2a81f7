"""Guidance scales that depend on the noise level; values may be traced."""

from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from jaxtyping import Array, Float

from ldm_jax.core.typing import Level

Scale = float | int | Float[Array, ""] | Callable[[Level], Float[Array, ""]]
"""One scale for all levels, or a function of the level."""
ScaleSchedule = Literal["constant", "linear", "cosine"]


def scale_at(scale: Scale, level: Level) -> float | int | Float[Array, ""]:
    """The scale at `level`."""
    return scale(level) if callable(scale) else scale


def scheduled(
    scale: float | int | Float[Array, ""],
    schedule: ScaleSchedule = "constant",
    interval: tuple[float | Float[Array, ""], float | Float[Array, ""]] | None = None,
    none: float = 1.0,
) -> Scale:
    """`scale` that grows while noise falls, or acts only between two noise levels.

    What guidance adds to `none`, the scale of no guidance, is multiplied by a weight that is
    `constant` 1, or rises from 0 at pure noise to 2 at none: `linear`, or `cosine` (Wang 2024,
    arXiv:2404.13040, section 4: the mean over the way is 1). The way is measured by the angle
    arctan(sigma / alpha), which is the paper's time for a cosine schedule and defined for every
    process.

    `interval` (low, high): outside of low < sigma / alpha <= high the scale is `none`
    (Kynkäänniemi 2024, arXiv:2404.07724, eq. 3, whose sigma is sigma / alpha here).
    Raises ValueError for an unknown schedule.
    """
    if schedule not in get_args(ScaleSchedule):
        raise ValueError(
            f"guidance_schedule is {schedule!r}; it must be one of {get_args(ScaleSchedule)}"
        )
    if schedule == "constant" and interval is None:
        return scale

    def at(level: Level) -> Float[Array, ""]:
        noise = jnp.arctan2(level.sigma, level.alpha) / (jnp.pi / 2)
        weight = {
            "constant": jnp.ones_like(noise),
            "linear": 2 * (1 - noise),
            "cosine": 1 + jnp.cos(jnp.pi * noise),
        }[schedule]
        value = none + weight * (scale - none)
        if interval is None:
            return value
        ratio = level.sigma / level.alpha  # infinite where alpha is 0
        return jnp.where((ratio > interval[0]) & (ratio <= interval[1]), value, none)

    return at
