"""The one loop of every sampler: noise levels made on the host, a solver stepped under one scan."""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Key

from ldm_jax import rngs
from ldm_jax.diffusion import schedules
from ldm_jax.diffusion.schedules import NoiseSchedule, Spacing
from ldm_jax.typing import Denoise, Level, Prediction, Solver

FinalAlphaBar = Literal["first", "one"]


class Sampled(NamedTuple):
    """Samples at the final level, and the x0 predictions of every step ([s, b, ...]) or None."""

    x: Float[Array, "b ..."]
    x0s: Float[Array, "s b ..."] | None


def levels(
    schedule: NoiseSchedule,
    steps: int,
    spacing: Spacing = "leading",
    final_alpha_bar: FinalAlphaBar = "first",
) -> Level:
    """The levels of `steps` steps, noisiest first, and the final one: arrays of steps + 1.

    Computed in float64, stored in float32 (int32 for timesteps). The final level's alpha_bar is
    alpha_bar[0] for "first" (the convention of CompVis' DDIM and Stable Diffusion) or 1 for "one"
    (clean, as in Ho 2020; what DDPM wants). A spacing that itself visits timestep 0 spends its
    last step on standing still with "first".

    Raises ValueError as `schedules.spacing` does, and for an unknown `final_alpha_bar`.
    """
    if final_alpha_bar not in get_args(FinalAlphaBar):
        raise ValueError(
            f"final_alpha_bar is {final_alpha_bar!r}; it must be one of {get_args(FinalAlphaBar)}"
        )
    times = schedules.spacing(spacing, schedule.num_timesteps, steps)[::-1]
    last = schedule.alpha_bar[0] if final_alpha_bar == "first" else 1.0
    alpha_bar = np.append(schedule.alpha_bar[times], last)
    return Level(
        timestep=jnp.asarray(np.append(times, 0).astype(np.int32)),
        alpha=jnp.asarray(np.sqrt(alpha_bar).astype(np.float32)),
        sigma=jnp.asarray(np.sqrt(1 - alpha_bar).astype(np.float32)),
        final=jnp.asarray(np.arange(times.size + 1) == times.size),
    )


def predict(denoise: Denoise, x: Float[Array, "b *d"], level: Level) -> Prediction:
    """`denoise` with one level for the whole batch."""
    return denoise(x, jnp.broadcast_to(level.timestep, x.shape[:1]))


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

    A slice `levels[k:]` of every field starts part of the way, as image-to-image does. What is
    compiled depends on the number of levels only through the length of arrays.

    Step i adds to example j noise from keys[j] folded with i, so an example does not depend on its
    batch; `keys` must not serve to draw `x_start` too. Deterministic solvers need none.

    Raises ValueError if there are fewer than two levels, or no keys for a stochastic solver.
    """
    steps = levels.timestep.shape[0] - 1
    if steps < 1:
        raise ValueError(f"levels holds {steps + 1} level(s); a step needs at least two")
    if solver.stochastic and keys is None:
        raise ValueError(f"{type(solver).__name__} draws noise; give keys, one per example")

    def body(carry, inputs):
        step, level, next_level = inputs
        noise = _noise(keys, step, x_start.shape[1:]) if solver.stochastic else None
        carry = solver.step(carry, level, next_level, denoise, noise)
        return carry, solver.x0(carry) if return_x0s else None

    here = jax.tree.map(lambda values: values[:-1], levels)
    there = jax.tree.map(lambda values: values[1:], levels)
    inputs = (jnp.arange(steps, dtype=jnp.int32), here, there)
    carry, x0s = jax.lax.scan(body, solver.init(x_start), inputs)
    return Sampled(x=solver.x(carry), x0s=x0s)


def _noise(
    keys: Key[Array, "b"], step: Int[Array, ""], shape: tuple[int, ...]
) -> Float32[Array, "b ..."]:
    return rngs.normal(rngs.at_step(keys, step), shape)
