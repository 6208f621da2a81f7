"""The one loop of every sampler: noise levels made on the host, a solver stepped under one scan."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Float64, Int, Key, Num

from ldm_jax import rngs
from ldm_jax.diffusion import schedules
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.typing import Denoise, Level, Prediction, Solver

Spacing = Literal[schedules.Spacing, "karras"]
FinalAlphaBar = Literal["first", "one"]


class Sampled(NamedTuple):
    """Samples at the final level, and the x0 of every evaluation ([e, b, ...]) or None."""

    x: Float[Array, "b ..."]
    x0s: Float[Array, "e b ..."] | None


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
        times = schedules.spacing(spacing, schedule.num_timesteps, steps)
        return levels_at(schedule, times[::-1], final_alpha_bar)
    if final_alpha_bar != "one":
        raise ValueError(
            f"spacing 'karras' ends in sigma 0, so final_alpha_bar must be 'one', not "
            f"{final_alpha_bar!r}"
        )
    if not 1 <= steps <= schedule.num_timesteps:
        raise ValueError(f"steps is {steps}; it must lie in 1..{schedule.num_timesteps}")
    low, high = schedule.noise_to_signal[[0, -1]]
    ratios = schedules.karras(low, high, steps)
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


def start(
    noise: Float32[Array, "b *d"], level: Level, data_std: float | int = 1.0
) -> Float32[Array, "b *d"]:
    """Standard normal `noise` with the variance of x at `level`, alpha^2 data_std^2 + sigma^2.

    What is sampled never saw a picture, so that of x = alpha x0 + sigma eps only the variance can
    be right. Latents are scaled to unit variance: data_std 1, which leaves the noise as it is
    where variance is preserved. So do CompVis, and diffusers but for the next case. data_std 0 is
    sigma times the noise: k-diffusion, the web UI, and diffusers' Euler and Heun with "linspace"
    or "trailing" spacing. At Stable Diffusion's noisiest level the two differ by 0.23%.
    """
    return jnp.sqrt((level.alpha * data_std) ** 2 + level.sigma**2) * noise


def move(
    x: Float32[Array, "b *d"],
    prediction: Prediction,
    level: Level,
    alpha: Float32[Array, ""],
    sigma: Float32[Array, ""],
) -> Float32[Array, "b *d"]:
    """alpha x0 + sigma eps, for the prediction of x at `level`.

    Written as a change of x, which is x0 and eps at `level`'s own scales: rounding then acts on
    the change alone, and a thousand steps in float32 agree with float64 to some 1e-6. Exactly
    alpha x0 for sigma 0.
    """
    x0, eps = prediction
    moved = x + (alpha - level.alpha) * x0 + (sigma - level.sigma) * eps
    return jnp.where(sigma == 0, alpha * x0, moved)


def transfer(
    x: Float32[Array, "b *d"], eps: Float32[Array, "b *d"], level: Level, next_level: Level
) -> Float32[Array, "b *d"]:
    """x at `level` brought to `next_level` along an eps (Liu 2022, arXiv:2202.09778, eq. 11).

    In y = x / alpha and r = sigma / alpha the probability flow is dy/dr = eps (Song 2020,
    arXiv:2010.02502, eq. 14; Karras 2022, eq. 1), and this is Euler's step. Where eps is that of
    x, it equals DDIM's.
    """
    along = Prediction(x0=(x - level.sigma * eps) / level.alpha, eps=eps)
    return move(x, along, level, next_level.alpha, next_level.sigma)


def gain(level: Level, next_level: Level) -> Float32[Array, ""]:
    """What `transfer` multiplies eps by: alpha' (r' - r), exactly 0 from a level to itself."""
    change = (next_level.alpha - level.alpha) / level.alpha
    return next_level.sigma - level.sigma - change * level.sigma


def sample(
    solver: Solver,
    denoise: Denoise,
    x_start: Float32[Array, "b *d"],
    levels: Level,
    keys: Key[Array, "b"] | None = None,
    *,
    return_x0s: bool = False,
) -> Sampled:
    """Carries `x_start`, examples at levels[0], to the last of `levels` with one `lax.scan`.

    A slice `levels[k:]` of every field starts part of the way, as image-to-image does; the final
    level alone gives `x_start` back. What is compiled depends on the number of levels only
    through the length of arrays, and holds `denoise` once.

    Step i adds to example j noise from keys[j] folded with i, so an example does not depend on its
    batch; `keys` must not serve to draw `x_start` too. Deterministic solvers need none.

    Raises ValueError if there is no level, or no keys for a stochastic solver.
    """
    steps = levels.timestep.shape[0] - 1
    if steps < 0:
        raise ValueError("levels is empty; it must hold the final level at least")
    if solver.stochastic and keys is None:
        raise ValueError(f"{type(solver).__name__} draws noise; give keys, one per example")

    def body(carry, inputs):
        step, level, next_level = inputs
        noise = _noise(keys, step, x_start.shape[1:]) if solver.stochastic else None
        carry = solver.step(carry, level, next_level, denoise, noise)
        return carry, carry.x0 if return_x0s else None

    visits = solver.visits(steps)
    here = jax.tree.map(lambda values: values[visits[:-1]], levels)
    there = jax.tree.map(lambda values: values[visits[1:]], levels)
    inputs = (jnp.arange(visits.size - 1, dtype=jnp.int32), here, there)
    carry, x0s = jax.lax.scan(body, solver.init(x_start), inputs)
    return Sampled(x=carry.x, x0s=x0s)


def _noise(
    keys: Key[Array, "b"], step: Int[Array, ""], shape: tuple[int, ...]
) -> Float32[Array, "b ..."]:
    return rngs.normal(rngs.at_step(keys, step), shape)
