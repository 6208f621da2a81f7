"""Inpainting by replacement keeps the known part, exactly, with every solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import rngs
from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.inpaint import Inpaint
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.loop import sample
from ldm_jax.sampling.solvers import make_solver

SHAPE = (2, 4, 4, 3)
KEYS = rngs.example_keys(rngs.stream(0, "solver"), jnp.arange(2))
KNOWN, NOISE, START = (
    rngs.normal(rngs.example_keys(rngs.stream(0, name), jnp.arange(2)), SHAPE[1:])
    for name in ("known", "noise", "start")
)
MASK = jnp.zeros((2, 4, 4, 1)).at[:, :, 2:].set(1.0)
SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)


def spread(x, t):
    """A network in which every pixel depends on all of them."""
    return 0.8 * x + 0.1 * jnp.mean(x, (1, 2), keepdims=True)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "plms", "euler_a", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("final", ["one", "first"])
def test_the_known_part_ends_as_it_was_given_and_the_rest_heeds_it(name, final):
    denoise, path = make_denoiser(spread, "eps", SCHEDULE), levels(SCHEDULE, 7, "trailing", final)
    draw = jax.jit(
        lambda known: (
            sample(Inpaint(make_solver(name), known, NOISE, MASK), denoise, START, path, KEYS).x
        )
    )
    x = draw(KNOWN)
    np.testing.assert_array_equal(x[:, :, :2], KNOWN[:, :, :2])
    other = draw(KNOWN + 1)
    assert np.abs(other[:, :, 2:] - x[:, :, 2:]).min() > 1e-4


def test_with_nothing_known_it_is_the_solver_alone():
    denoise, path = make_denoiser(spread, "eps", SCHEDULE), levels(SCHEDULE, 7)
    alone = sample(make_solver("ddim"), denoise, START, path).x
    masked = Inpaint(make_solver("ddim"), KNOWN, NOISE, jnp.ones_like(MASK))
    np.testing.assert_array_equal(sample(masked, denoise, START, path).x, alone)
