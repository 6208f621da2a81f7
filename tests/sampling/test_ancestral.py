"""DDIM and DDPM against Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import COV, MEAN, denoise, flow, keys, marginal

from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.ancestral import DDIM, DDPM
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.scan import sample

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)


def test_ddim_follows_the_probability_flow_at_first_order():
    errors, counts = [], np.array([20, 160])
    draw = jax.jit(lambda x, run: sample(DDIM(), denoise, x, run).x)
    for steps in counts:
        run = levels(SCHEDULE, int(steps), "linspace")
        x = marginal(16, run)
        errors.append(np.abs(draw(x, run) - flow(x, run)).max())
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert 0.85 < order < 1.2, (order, errors)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "quad"])
def test_ddim_reaches_the_data(spacing):
    run = levels(SCHEDULE, 333, spacing, "one")
    x = marginal(64, run)
    got = np.asarray(sample(DDIM(), denoise, x, run).x)
    np.testing.assert_allclose(got, flow(x, run), atol=0.03)


@pytest.mark.parametrize("solver", [DDIM(), DDIM(eta=1.0), DDPM(), DDPM("beta")])
def test_samples_have_the_mean_and_covariance_of_the_data(solver):
    n, run = 8192, levels(SCHEDULE, 500, "leading", "one")
    run_all = jax.jit(lambda x, k: sample(solver, denoise, x, run, k).x)
    got = np.asarray(run_all(marginal(n, run), keys(n, "steps")))
    np.testing.assert_allclose(got.mean(0), MEAN, atol=0.04)  # 3.6 standard errors
    np.testing.assert_allclose(np.cov(got.T), COV, atol=0.055)  # 3.5 standard errors


@pytest.mark.parametrize("eta", [1.5, 5.0])
def test_ddim_with_more_noise_than_there_is_room_for_stays_with_the_data(eta):
    run = levels(SCHEDULE, 100, "trailing", "one")
    got = np.asarray(sample(DDIM(eta), denoise, marginal(256, run), run, keys(256, "steps")).x)
    assert np.abs(got - MEAN).max() < 6  # six standard deviations of the wider axis


def test_ddim_with_eta_one_is_ddpm():
    run = levels(SCHEDULE, 20, "quad", "one")  # uneven strides
    x, noise = marginal(8, run), keys(8, "steps")
    ddim, ddpm = (sample(s, denoise, x, run, noise, return_x0s=True) for s in (DDIM(1.0), DDPM()))
    np.testing.assert_allclose(ddim.x, ddpm.x, atol=1e-4)
    np.testing.assert_allclose(ddim.x0s, ddpm.x0s, atol=1e-4)


def test_posterior_of_a_single_stride():
    """Ho 2020, eq. 6 and 7, written in alpha_bar and beta."""
    beta = 1 - SCHEDULE.alpha_bar[5] / SCHEDULE.alpha_bar[4]
    now, before = SCHEDULE.alpha_bar[5], SCHEDULE.alpha_bar[4]
    run = levels(SCHEDULE, 1000)
    at = [jax.tree.map(lambda v, i=i: v[i], run) for i in (994, 995)]
    assert [int(level.timestep) for level in at] == [5, 4]
    x, noise = jnp.array([[0.7, -0.2]]), jnp.array([[1.0, -2.0]])
    x0 = np.asarray(denoise(x, at[0]).x0, np.float64)
    mean = np.sqrt(before) * beta / (1 - now) * x0 + np.sqrt(1 - beta) * (1 - before) / (
        1 - now
    ) * np.asarray(x)
    for kind, variance in (("beta_tilde", (1 - before) / (1 - now) * beta), ("beta", beta)):
        solver = DDPM(kind)
        got = solver.step(solver.init(x), *at, denoise, noise).x
        np.testing.assert_allclose(got, mean + np.sqrt(variance) * noise, rtol=1e-5)


@pytest.mark.parametrize("solver", [DDIM(eta=1.0), DDPM(), DDPM("beta")])
def test_no_noise_on_the_way_to_the_final_level(solver):
    run = jax.tree.map(lambda v: v[-2:], levels(SCHEDULE, 10))
    x = jnp.ones((2, 2))
    a, b = (sample(solver, denoise, x, run, keys(2, name)).x for name in ("a", "b"))
    np.testing.assert_array_equal(a, b)


def test_bad_settings():
    with pytest.raises(ValueError, match="eta is -1"):
        DDIM(eta=-1.0)
