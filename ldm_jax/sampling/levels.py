"""Noise levels that a sampler visits: made on the host in float64, stored in float32."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64, Num

from ldm_jax.diffusion import spacing as spacings
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.typing import Level

Spacing = Literal[spacings.Spacing, "karras"]
FinalAlphaBar = Literal["first", "one"]


def levels(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing = "leading",
    final_alpha_bar: FinalAlphaBar = "first",
) -> Level:
    """The levels of `steps` steps, noisiest first, and the final one: arrays of steps + 1.

    Computed in float64, stored in float32. The final level's alpha_bar is alpha_bar[0] for "first"
    (the convention of CompVis' DDIM and Stable Diffusion) or 1 for "one" (clean, as in Ho 2020;
    what DDPM and k-diffusion want). A spacing that itself visits timestep 0 spends its last step
    on standing still with "first".

    "karras" spaces noise levels, not timesteps: sigma / alpha as Karras 2022 (arXiv:2206.00364),
    eq. 5, with rho 7 between the ends of the schedule, then 0. The timesteps that the network is
    told are interpolated and fractional.

    Raises ValueError as `schedules.spacing` does, for an unknown spacing or `final_alpha_bar`, and
    for "karras" with "first", which would repeat the last level.
    """
    if spacing not in get_args(Spacing):
        raise ValueError(f"spacing is {spacing!r}; it must be one of {get_args(Spacing)}")
    if spacing != "karras":
        times = spacings.spacing(spacing, schedule.num_timesteps, steps)
        return levels_at(schedule, times[::-1], final_alpha_bar)
    if final_alpha_bar != "one":
        raise ValueError(
            f"spacing 'karras' ends in sigma 0, so final_alpha_bar must be 'one', not "
            f"{final_alpha_bar!r}"
        )
    if not 1 <= steps <= schedule.num_timesteps:
        raise ValueError(f"steps is {steps}; it must lie in 1..{schedule.num_timesteps}")
    low, high = schedule.noise_to_signal[[0, -1]]
    ratios = spacings.karras(low, high, steps)
    return _levels(np.append(schedule.timesteps_of(ratios), 0), np.append(ratios, 0))


def levels_at(
    schedule: NoiseSchedule,
    timesteps: Num[np.ndarray, "s"],
    final_alpha_bar: FinalAlphaBar = "first",
) -> Level:
    """The levels of any list of timesteps, whole or not, noisiest first, and the final one.

    For lists that `levels` does not make. Raises ValueError unless there is a timestep and they
    fall strictly within 0..T-1, and for an unknown `final_alpha_bar`.
    """
    if final_alpha_bar not in get_args(FinalAlphaBar):
        raise ValueError(
            f"final_alpha_bar is {final_alpha_bar!r}; it must be one of {get_args(FinalAlphaBar)}"
        )
    inside = np.all((timesteps >= 0) & (timesteps <= schedule.num_timesteps - 1))
    if timesteps.size == 0 or not inside or not np.all(np.diff(timesteps) < 0):
        raise ValueError(
            f"timesteps are {timesteps}; they must fall strictly and lie in "
            f"0..{schedule.num_timesteps - 1}"
        )
    last = schedule.noise_to_signal[0] if final_alpha_bar == "first" else 0.0
    ratios = np.append(schedule.noise_to_signal_at(timesteps), last)
    return _levels(np.append(timesteps, 0), ratios)


def _levels(timesteps: Num[np.ndarray, "s"], ratios: Float64[np.ndarray, "s"]) -> Level:
    """Variance-preserving levels of the noise-to-signal `ratios`, the last one final."""
    alpha = 1 / np.sqrt(1 + ratios**2)
    return Level(
        timestep=jnp.asarray(timesteps.astype(np.float32)),
        alpha=jnp.asarray(alpha.astype(np.float32)),
        sigma=jnp.asarray((ratios * alpha).astype(np.float32)),
        final=jnp.asarray(np.arange(ratios.size) == ratios.size - 1),
    )


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
