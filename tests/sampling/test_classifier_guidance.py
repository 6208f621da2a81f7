"""Classifier guidance against data and classifier that are Gaussian: the posterior is exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import BASIS, COV, MEAN, STD, denoise, keys, marginal

from ldm_jax.core.typing import Level
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.sampling.ancestral import DDIM, DDPM
from ldm_jax.sampling.dpm_multistep import DPMSolverPP2M
from ldm_jax.sampling.guidance import MeanShift, classifier, gradient
from ldm_jax.sampling.levels import levels
from ldm_jax.sampling.scan import sample
from ldm_jax.sampling.sde import PredictorCorrector
from ldm_jax.sampling.solvers import make_solver

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
LOOK, ANSWER, ERROR = np.array([0.8, -0.6], np.float32), 1.5, 0.4
"""The classifier's y = LOOK . x0 + ERROR noise, and the y that is wanted."""


def log_prob(x, level):
    """log p(y | x_t) up to a constant: y given x_t is Gaussian, as x0 given x_t is."""
    x0 = denoise(x, level).x0
    across = level.sigma**2 * STD**2 / (level.alpha**2 * STD**2 + level.sigma**2)
    variance = jnp.sum((LOOK @ BASIS) ** 2 * across) + ERROR**2
    return -((ANSWER - x0 @ LOOK) ** 2) / (2 * variance)


def posterior():
    """Mean and covariance of x0 given y."""
    gain = COV @ LOOK / (LOOK @ COV @ LOOK + ERROR**2)
    return MEAN + gain * (ANSWER - LOOK @ MEAN), COV - np.outer(gain, LOOK @ COV)


@pytest.mark.parametrize(
    ("solver", "form"),
    [
        (DDIM(), "eps"),
        (DDPM(), "eps"),
        (DDPM("beta"), "mean"),
        (DDIM(1.0), "mean"),
        (DPMSolverPP2M(1.0), "mean"),
    ],
)
def test_samples_are_those_of_the_posterior(solver, form):
    n, run, scale = 4096, levels(SCHEDULE, 300, "leading", "one"), jnp.float32(1.0)

    @jax.jit
    def draw(x, noise, scale):
        if form == "eps":
            return sample(solver, classifier(denoise, log_prob, scale), x, run, noise).x
        return sample(MeanShift(solver, log_prob, scale), denoise, x, run, noise).x

    got = np.asarray(draw(marginal(n, run), keys(n, "steps"), scale), np.float64)
    mean, covariance = posterior()
    # Standard errors are 0.015 and 0.022; the rest is the steps' own error.
    np.testing.assert_allclose(got.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(got.T), covariance, atol=0.08)


def test_the_scale_sharpens():
    """Scale s is a classifier with s times the evidence: p(x) p(y | x)^s."""
    level = Level(jnp.float32(5), jnp.float32(0.8), jnp.float32(0.6), jnp.zeros((), bool))
    x = marginal(8, jax.tree.map(lambda value: value[None], level))
    plain, guided = denoise(x, level), classifier(denoise, log_prob, 3.0)(x, level)
    slope = gradient(log_prob, x, level)
    np.testing.assert_allclose(guided.eps, plain.eps - 0.6 * 3 * slope, rtol=1e-5)
    np.testing.assert_allclose(0.8 * guided.x0 + 0.6 * guided.eps, x, atol=1e-5)


def test_pure_noise_is_left_alone():
    level = Level(jnp.float32(9), jnp.float32(0), jnp.float32(1), jnp.zeros((), bool))
    x = jnp.ones((2, 2))
    guided = classifier(denoise, log_prob, 3.0)(x, level)
    np.testing.assert_array_equal(guided.x0, denoise(x, level).x0)


def test_a_mean_shift_needs_noise_and_steps_of_one_evaluation():
    with pytest.raises(ValueError, match="DDIM adds no noise"):
        MeanShift(DDIM(), log_prob, 1.0)
    for name in ("dpm2_a", "dpmpp_2s_a", "dpmpp_sde"):
        with pytest.raises(ValueError, match="evaluates more than once a step"):
            MeanShift(make_solver(name), log_prob, 1.0)
    with pytest.raises(ValueError, match="PredictorCorrector evaluates more than once"):
        MeanShift(PredictorCorrector(DDPM()), log_prob, 1.0)
