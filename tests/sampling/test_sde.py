"""Solvers that draw noise reach the data's distribution; correctors hold a level's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import COV, MEAN, denoise, keys, marginal

from ldm_jax.core.typing import Level, Prediction
from ldm_jax.diffusion.processes import VE
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.ancestral import DDPM
from ldm_jax.sampling.dpm_multistep import DPMSolverPP2M, DPMSolverPP3M
from ldm_jax.sampling.levels import inner_levels, levels, levels_at
from ldm_jax.sampling.scan import sample
from ldm_jax.sampling.sde import EulerMaruyama, PredictorCorrector, ReverseDiffusion
from ldm_jax.sampling.solver_base import log_snr
from ldm_jax.sampling.solvers import make_solver

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
N = 8192
MEANS, WEIGHTS, STD = np.array([-1.5, 1.0], np.float32), np.array([0.3, 0.7], np.float32), 0.2


def mixture(x, level):
    """E[x0 | x] for x0 from two normal distributions, in one dimension."""
    alpha, sigma = level.alpha, level.sigma
    variance = (alpha * STD) ** 2 + sigma**2
    off = x - alpha * MEANS[None]
    share = jax.nn.softmax(jnp.log(WEIGHTS)[None] - off**2 / (2 * variance), axis=1)
    x0 = MEANS[None] + alpha * STD**2 / variance * off
    x0 = jnp.sum(share * x0, axis=1, keepdims=True)
    return Prediction(x0=x0, eps=(x - alpha * x0) / sigma)


def ends(solver, path, predict=denoise, start=None):
    start = marginal(N, path) if start is None else start
    run = jax.jit(lambda x, path: sample(solver, predict, x, path, keys(N, "steps")).x)
    return np.asarray(run(start, inner_levels(solver, SCHEDULE, path)))


@pytest.mark.parametrize(
    ("name", "spacing", "steps"),
    [
        ("euler_a", "karras", 200),
        ("dpm2_a", "karras", 60),
        ("dpmpp_2s_a", "karras", 60),
        ("dpmpp_sde", "karras", 60),
        ("dpmpp_2m_sde", "karras", 60),
        ("dpmpp_3m_sde", "karras", 60),
        ("reverse_diffusion", "trailing", 500),
        ("euler_maruyama", "trailing", 500),
    ],
)
def test_samples_have_the_mean_and_covariance_of_the_data(name, spacing, steps):
    path = levels(SCHEDULE, steps, spacing, "one")
    got = ends(make_solver(name, None, SCHEDULE), path)
    # 3.6 and 3.9 standard errors: 0.011 of the mean, 0.0156 of the first variance.
    np.testing.assert_allclose(got.mean(0), MEAN, atol=0.04)
    np.testing.assert_allclose(np.cov(got.T), COV, atol=0.06)


@pytest.mark.parametrize("name", ["dpmpp_2m_sde", "dpmpp_sde", "dpmpp_2s_a", "unipc_3"])
def test_a_mixture_keeps_its_weights_and_widths(name):
    # From pure noise: at the last timestep 7% of the signal is left, which moves weights by 0.02.
    path = levels(SCHEDULE, 100, "karras", "one")
    first = float(path.alpha[0])
    x = np.asarray(marginal(N, path))
    unit = (x[:, :1] - first * MEAN[0]) / x[:, 0].std()
    rng = np.random.default_rng(0)
    x0 = rng.choice(MEANS, N, p=WEIGHTS / WEIGHTS.sum())[:, None] + STD * rng.normal(size=(N, 1))
    start = jnp.asarray(first * x0 + float(path.sigma[0]) * unit[::-1], jnp.float32)
    got = ends(make_solver(name), path, mixture, start)[:, 0]
    assert abs((got > 0).mean() - 0.7) < 0.025  # 4.9 standard errors
    for mean, part in ((1.0, got[got > 0]), (-1.5, got[got <= 0])):
        assert abs(part.mean() - mean) < 0.03
        assert abs(part.std() - STD) < 0.03


@pytest.mark.parametrize("corrector", ["langevin", "annealed_langevin"])
def test_a_corrector_holds_the_distribution_of_a_level(corrector):
    """Entered with half of the level's standard deviation, which the steps put right."""
    solver = PredictorCorrector(DDPM(), corrector, 80, 0.25)
    assert list(solver.visits(1)) == [0] * 81 + [1]
    first = jax.tree.map(lambda values: values[300], levels(SCHEDULE, 1000, "trailing", "one"))
    still = Level(*(jnp.stack([value] * 2) for value in first))

    def normal(x, level):
        return Prediction(level.alpha * x, level.sigma * x)  # E[x0 | x] of standard normal data

    # Many dimensions, as in pictures: in few, norms vary, and with them the length of steps.
    x = jnp.asarray(np.random.default_rng(1).normal(size=(256, 256)) / 2, jnp.float32)
    run = jax.jit(lambda x: sample(solver, normal, x, still, keys(256, "steps")).x)
    got = np.asarray(run(x))
    # Langevin's step of length h leaves a variance of 1 / (1 - h / 2), h being 2 snr^2.
    assert abs(got.std() - (1 - 0.25**2) ** -0.5) < 0.01
    assert abs(got.mean()) < 0.02  # 5 standard errors


@pytest.mark.parametrize("predictor", [ReverseDiffusion(), DDPM("beta")])
def test_predictor_and_corrector_have_the_mean_and_covariance_of_the_data(predictor):
    path = levels(SCHEDULE, 250, "trailing", "one")
    got = ends(PredictorCorrector(predictor, "annealed_langevin", 1, 0.16), path)
    np.testing.assert_allclose(got.mean(0), MEAN, atol=0.04)
    np.testing.assert_allclose(np.cov(got.T), COV, atol=0.06)


def test_where_variance_explodes():
    process = VE(0.01, 20.0)
    path = levels_at(process, np.linspace(1, 1e-3, 300), "one")
    for solver in (ReverseDiffusion(), EulerMaruyama(process)):
        run = jax.jit(lambda x, s=solver: sample(s, denoise, x, path, keys(N, "steps")).x)
        got = np.asarray(run(marginal(N, path)))
        np.testing.assert_allclose(got.mean(0), MEAN, atol=0.05)
        np.testing.assert_allclose(np.cov(got.T), COV, atol=0.1)


def test_third_order_integrates_a_quadratic_x0_exactly():
    """As the multistep formulas that take half of the second derivative do not."""
    lam = np.linspace(-2.0, 2.0, 9)
    alpha = 1 / np.sqrt(1 + np.exp(-2 * lam))
    path = Level(
        *(jnp.asarray(v, jnp.float32) for v in (lam, alpha, alpha * np.exp(-lam))),
        jnp.arange(9) == 8,
    )

    def quadratic(x, level):
        x0 = jnp.full_like(x, log_snr(level) ** 2)
        return Prediction(x0, (x - level.alpha * x0) / level.sigma)

    def at(steps, solver):
        some = jax.tree.map(lambda values: values[: steps + 1], path)
        return np.asarray(sample(solver, quadratic, jnp.ones((1, 1)), some).x)[0, 0]

    # x / sigma changes by the integral of e^lambda lambda^2.
    whole = [np.exp(v) * (v**2 - 2 * v + 2) for v in lam]
    sigma = np.asarray(path.sigma, np.float64)
    expected = whole[7] - whole[6]
    found = {
        s: at(7, s) / sigma[7] - at(6, s) / sigma[6] for s in (DPMSolverPP3M(0), DPMSolverPP2M())
    }
    assert abs(found[DPMSolverPP3M(0)] - expected) < 1e-4 * expected
    assert abs(found[DPMSolverPP2M()] - expected) > 1e-3 * expected


def test_what_cannot_be_corrected():
    for predictor in (make_solver("dpmpp_2m"), make_solver("heun"), make_solver("dpm2")):
        with pytest.raises(ValueError, match="cannot be corrected"):
            PredictorCorrector(predictor)
    with pytest.raises(ValueError, match="corrector_steps is 0"):
        PredictorCorrector(DDPM(), corrector_steps=0)
    with pytest.raises(ValueError, match="snr is 0"):
        PredictorCorrector(DDPM(), snr=0)


def test_euler_maruyama_ends_clean_where_its_list_ends_at_the_final_time():
    path = levels_at(SCHEDULE, np.array([40, 0]), "one")
    assert path.timestep[-2] == path.timestep[-1] == 0
    x = marginal(64, jax.tree.map(lambda values: values[1:], path))
    solver = EulerMaruyama(SCHEDULE)
    here, there = (jax.tree.map(lambda values, i=i: values[i], path) for i in (1, 2))
    carry = solver.step(solver.init(x), here, there, denoise, jnp.ones_like(x))
    np.testing.assert_array_equal(carry.x, denoise(x, here).x0)
