"""Inpainting by replacement keeps a part of a picture, exactly, with every solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core import rngs
from ldm_jax.core.typing import Prediction
from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.inpaint import Inpaint, jumps
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.scan import sample
from ldm_jax.sampling.solvers import make_solver

SHAPE = (2, 4, 4, 3)
KEYS = rngs.example_keys(rngs.stream(0, "solver"), jnp.arange(2))
ORIGINAL, NOISE, START = (
    rngs.normal(rngs.example_keys(rngs.stream(0, name), jnp.arange(2)), SHAPE[1:])
    for name in ("original", "noise", "start")
)
MASK = jnp.zeros((2, 4, 4, 1)).at[:, :, 2:].set(1.0)
SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)


def spread(x, t):
    """A network in which every pixel depends on all of them."""
    return 0.8 * x + 0.1 * jnp.mean(x, (1, 2), keepdims=True)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "plms", "euler_a", "heun", "dpmpp_2m"])
@pytest.mark.parametrize("final", ["one", "first"])
def test_the_kept_part_ends_as_it_was_and_the_rest_heeds_it(name, final):
    denoise, path = make_denoiser(spread, "eps", SCHEDULE), levels(SCHEDULE, 7, "trailing", final)
    draw = jax.jit(
        lambda original: (
            sample(Inpaint(make_solver(name), original, NOISE, MASK), denoise, START, path, KEYS).x
        )
    )
    x = draw(ORIGINAL)
    np.testing.assert_array_equal(x[:, :, :2], ORIGINAL[:, :, :2])
    other = draw(ORIGINAL + 1)
    assert np.abs(other[:, :, 2:] - x[:, :, 2:]).min() > 1e-4


def test_with_nothing_kept_it_is_the_solver_alone():
    denoise, path = make_denoiser(spread, "eps", SCHEDULE), levels(SCHEDULE, 7)
    alone = sample(make_solver("ddim"), denoise, START, path).x
    masked = Inpaint(make_solver("ddim"), ORIGINAL, NOISE, jnp.ones_like(MASK))
    np.testing.assert_array_equal(sample(masked, denoise, START, path).x, alone)


def test_order_of_visits_with_resampling():
    assert list(jumps(3, 2, 1)) == [0, 1, 0, 1, 2, 1, 2, 3]
    assert list(jumps(5, 3, 2)) == [0, 1, 2, 0, 1, 2, 0, 1, 2, 3, 4, 2, 3, 4, 2, 3, 4, 5]
    assert list(jumps(4, 1, 2)) == [0, 1, 2, 3, 4]
    assert list(jumps(1, 5, 1)) == [0, 1]


@pytest.mark.parametrize("name", ["ddim", "ddpm", "dpmpp_2m"])
def test_resampling_keeps_its_part_and_calls_the_network_in_one_place(name):
    path, calls = levels(SCHEDULE, 6, "trailing", "one"), []

    def denoise(x, level):
        calls.append(x)
        return make_denoiser(spread, "eps", SCHEDULE)(x, level)

    solver = Inpaint(make_solver(name), ORIGINAL, NOISE, MASK, resample=3, jump=2)
    x = jax.jit(lambda x: sample(solver, denoise, x, path, KEYS).x)(START)
    np.testing.assert_array_equal(x[:, :, :2], ORIGINAL[:, :, :2])
    assert np.isfinite(x).all()
    assert len(calls) == 1


def test_resampling_learns_what_the_kept_part_says_of_the_rest():
    """Two Gaussian pixels of correlation rho: the second given the first has mean rho times it.

    Replacement alone falls short of it, because what is drawn early cannot take back what it
    decided under the noise of the kept pixel; RePaint's figure 2 shows the same with pictures.
    """
    n, rho = 2048, 0.95
    covariance = np.array([[1, rho], [rho, 1]], np.float32)
    stds, basis = np.sqrt(np.linalg.eigvalsh(covariance)), np.linalg.eigh(covariance)[1]

    def denoise(x, level):
        flat = x.reshape(-1, 2)
        gain = level.alpha * stds**2 / (level.alpha**2 * stds**2 + level.sigma**2)
        x0 = (((flat @ basis) * gain[None]) @ basis.T).reshape(x.shape)
        return Prediction(x0=x0, eps=(x - level.alpha * x0) / level.sigma)

    keys = rngs.example_keys(rngs.stream(1, "pairs"), jnp.arange(n))
    start, noise = (
        rngs.normal(rngs.example_keys(rngs.stream(1, name), jnp.arange(n)), (1, 2, 1))
        for name in ("start", "noise")
    )
    original = jnp.full((n, 1, 2, 1), 1.5)
    mask = jnp.zeros((n, 1, 2, 1)).at[:, :, 1].set(1.0)
    path = levels(SCHEDULE, 25, "trailing", "one")

    def error(resample):
        solver = Inpaint(make_solver("ddpm"), original, noise, mask, resample)
        x = jax.jit(lambda x: sample(solver, denoise, x, path, keys).x)(start)[:, 0, 1, 0]
        return abs(float(x.mean()) - rho * 1.5), abs(float(x.std()) - (1 - rho**2) ** 0.5)

    (mean, std), (mean_again, std_again) = error(1), error(10)
    assert mean_again < 0.5 * mean, (mean, mean_again)
    assert std_again < 0.7 * std, (std, std_again)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("heun", {"resample": 2}, "resample is 2, but Heun evaluates more than once a step"),
        ("dpm2", {"resample": 2}, "resample is 2, but DPMSolver evaluates more than once a step"),
        ("dpmpp_sde", {"resample": 2}, "but DPMSolverPPSDE evaluates more than once a step"),
        ("ddim", {"resample": 0}, "resample is 0; it must be 1 or more"),
        ("ddim", {"jump": 0}, "jump is 0; it must be 1 or more"),
    ],
)
def test_resampling_that_cannot_work_is_refused(name, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        Inpaint(make_solver(name), ORIGINAL, NOISE, MASK, **change)
