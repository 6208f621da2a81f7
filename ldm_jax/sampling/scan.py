"""The one loop of every sampler: a solver stepped from level to level under one scan, whole or in
parts; and the way back, from an example to its noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, Key

from ldm_jax.core import rngs
from ldm_jax.core.typing import Denoise, Level, Prediction, Solver
from ldm_jax.sampling.ancestral import DDIM


class State(NamedTuple):
    """A run between two evaluations; any of its parts can begin with it."""

    carry: Any
    """The solver's."""
    x0s: Float[Array, "k b ..."] | None
    """The x0 of evaluations that are kept, zero where they are still to come; or None."""


class Path(NamedTuple):
    """The evaluations of a run, one entry of each array for each; see `path_along`."""

    here: Level
    """The level at which the network is evaluated."""
    there: Level
    """The level that the step leads to."""
    slot: Int[Array, "e"]
    """Where in `State.x0s` the x0 is kept; past its end for those that are not."""


class Sampled(NamedTuple):
    """Samples at the final level, and the x0 of evaluations ([e, b, ...]) or None."""

    x: Float[Array, "b ..."]
    x0s: Float[Array, "e b ..."] | None


def initial_x(
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


def sample(
    solver: Solver,
    denoise: Denoise,
    x_start: Float32[Array, "b *d"],
    levels: Level,
    keys: Key[Array, "b"] | None = None,
    *,
    return_x0s: bool | int = False,
) -> Sampled:
    """Carries `x_start`, examples at levels[0], to the last of `levels` with one `lax.scan`.

    A slice `levels[k:]` of every field starts part of the way, as image-to-image does; the final
    level alone gives `x_start` back. What is compiled depends on the number of levels only
    through the length of arrays, and holds `denoise` once.

    Step i adds to example j noise from keys[j] folded with i, so an example does not depend on its
    batch; `keys` must not serve to draw `x_start` too. Deterministic solvers need none.

    `return_x0s` is True for the x0 of every evaluation, or how many of them: those of `evenly`,
    beside which none takes memory.

    Raises ValueError if there is no level, or no keys for a stochastic solver.
    """
    path = path_along(solver, levels, return_x0s)
    state = start(solver, x_start, evaluations(solver, levels), return_x0s)
    carry, x0s = advance(solver, denoise, state, path, keys, begin=0, end=path.slot.size)
    return Sampled(x=carry.x, x0s=x0s)


def path_along(
    solver: Solver, levels: Level, return_x0s: bool | int = False, multiple: int = 1
) -> Path:
    """The evaluations that `sample` makes, as arrays.

    With `multiple` their length is rounded up to a multiple of it, so that a program that is given
    them as arguments serves many numbers of steps; what is added repeats the last evaluation.
    """
    visits = solver.visits(_steps(levels))
    count = visits.size - 1
    kept = evenly(count, _kept(count, return_x0s))
    slot = np.full(count, kept.size, np.int32)
    slot[kept] = np.arange(kept.size)
    filled = np.minimum(np.arange(-(-count // multiple) * multiple), max(0, count - 1))
    here, there = (
        jax.tree.map(lambda values, at=at: values[at], levels)
        for at in (visits[:-1][filled], visits[1:][filled])
    )
    return Path(here, there, jnp.asarray(slot[filled]))


def start(
    solver: Solver,
    x_start: Float32[Array, "b *d"],
    evaluations: int,
    return_x0s: bool | int = False,
) -> State:
    """The state before the first of so many evaluations; the arguments are those of `sample`."""
    kept = _kept(evaluations, return_x0s)
    x0s = jnp.zeros((kept, *x_start.shape), jnp.float32) if return_x0s else None
    return State(solver.init(x_start), x0s)


def advance(
    solver: Solver,
    denoise: Denoise,
    state: State,
    path: Path,
    keys: Key[Array, "b"] | None = None,
    *,
    begin: Int[Array, ""] | int,
    end: Int[Array, ""] | int,
) -> State:
    """The state after evaluations `begin` to `end` (exclusive) of `path`.

    The one loop of every sampler. With bounds that are known when it is traced it is a `lax.scan`.
    With traced ones it is a loop that one compiled program runs as a whole or in parts, so that
    both give the same bits.

    Raises ValueError if there are no keys for a stochastic solver.
    """
    if solver.stochastic and keys is None:
        raise ValueError(f"{type(solver).__name__} draws noise; give keys, one per example")
    if not path.slot.size:  # the final level alone
        return state

    def body(step: Int[Array, ""], state: State) -> State:
        carry, x0s = state
        level, next_level, slot = jax.tree.map(lambda values: values[step], path)
        noise = _noise(keys, step, carry.x.shape[1:]) if solver.stochastic else None
        carry = solver.step(carry, level, next_level, denoise, noise)
        if x0s is not None and len(x0s):
            x0s = x0s.at[slot].set(carry.x0, mode="drop")
        return State(carry, x0s)

    return jax.lax.fori_loop(begin, end, body, state)


def evaluations(solver: Solver, levels: Level) -> int:
    """How often `sample` calls `denoise`.

    Raises ValueError if there is no level.
    """
    return solver.visits(_steps(levels)).size - 1


def reverse(levels: Level) -> Level:
    """`levels` from the last to the first, which becomes the final one."""
    turned = jax.tree.map(lambda values: values[::-1], levels)
    return turned._replace(final=jnp.arange(turned.final.size) == turned.final.size - 1)


def invert(denoise: Denoise, x: Float32[Array, "b *d"], levels: Level) -> Float32[Array, "b *d"]:
    """The noisy example at the first of `levels` that DDIM brings to x, an example at the last.

    DDIM's steps with eta 0 from level to level upwards (Song 2020, arXiv:2010.02502, section 4.3),
    as many evaluations as downwards, and back again exact up to the error of the steps. Where the
    last level has no noise, of which networks know nothing, eps is that at the level before.
    Divide by the first level's standard deviation of x (see `initial_x`) for noise of unit
    variance.
    """
    noisy: Level = jax.tree.map(lambda values: values[-2:][0], levels)

    def from_clean(x: Float32[Array, "b *d"], level: Level) -> Prediction:
        clean = level.sigma == 0
        asked = jax.tree.map(lambda there, here: jnp.where(clean, there, here), noisy, level)
        x0, eps, _ = denoise(asked.alpha / level.alpha * x, asked)
        return Prediction(jnp.where(clean, x / level.alpha, x0), eps)

    return sample(DDIM(), from_clean, x, reverse(levels)).x


def evenly(evaluations: int, count: int) -> Int[np.ndarray, "k"]:
    """`count` of so many evaluations, the first and the last among them; all where there are
    fewer, and the first if it is one."""
    places = np.linspace(0, evaluations - 1, min(count, evaluations))
    return np.round(places).astype(np.int32)


def _steps(levels: Level) -> int:
    steps = levels.timestep.shape[0] - 1
    if steps < 0:
        raise ValueError("levels is empty; it must hold the final level at least")
    return steps


def _kept(evaluations: int, return_x0s: bool | int) -> int:
    return evaluations if return_x0s is True else min(evaluations, int(return_x0s))


def _noise(
    keys: Key[Array, "b"], step: Int[Array, ""], shape: tuple[int, ...]
) -> Float32[Array, "b ..."]:
    return rngs.normal(rngs.at_step(keys, step), shape)
