"""Likelihoods by the probability flow against data whose density is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gaussian import COV, MEAN, keys
from gaussian import denoise as gaussian

from ldm_jax.core.typing import Prediction
from ldm_jax.diffusion import likelihood as lh
from ldm_jax.diffusion.processes import EDM, VE, VP, SubVP
from ldm_jax.diffusion.schedules import NoiseSchedule

PROCESSES = {
    "discrete": NoiseSchedule.create("scaled_linear", 1000),
    "vp": VP(),
    "sub-vp": SubVP(),
    "ve": VE(),
    "edm": EDM(),
}
CENTRES = np.array([[1.0, 0.5], [-0.8, 0.0], [0.2, -1.0]], np.float32)
WIDTH = 0.3


def mixture(x, level):
    """E[x0 | x] for x0 of three equal Gaussians of standard deviation WIDTH."""
    variance = (level.alpha * WIDTH) ** 2 + level.sigma**2
    offset = x[:, None] - level.alpha * CENTRES[None]
    weight = jax.nn.softmax(-jnp.sum(offset**2, -1) / (2 * variance), axis=1)
    guesses = CENTRES[None] + level.alpha * WIDTH**2 / variance * offset
    x0 = jnp.sum(weight[..., None] * guesses, axis=1)
    return Prediction(x0=x0, eps=(x - level.alpha * x0) / level.sigma)


def gaussian_density(x, alpha, sigma):
    """log N(x; alpha MEAN, alpha^2 COV + sigma^2) in float64."""
    covariance = alpha**2 * COV.astype(np.float64) + sigma**2 * np.eye(2)
    offset = np.asarray(x, np.float64) - alpha * MEAN
    quadratic = np.einsum("bi,ij,bj->b", offset, np.linalg.inv(covariance), offset)
    return -0.5 * (quadratic + np.log(np.linalg.det(2 * np.pi * covariance)))


def mixture_density(x, alpha, sigma):
    variance = (alpha * WIDTH) ** 2 + sigma**2
    squares = np.sum((np.asarray(x, np.float64)[:, None] - alpha * CENTRES[None]) ** 2, -1)
    return np.log(np.mean(np.exp(-squares / (2 * variance)) / (2 * np.pi * variance), axis=1))


X = jnp.asarray(np.random.default_rng(0).normal(size=(16, 2)) * 0.8, jnp.float32)
DATA = {"gaussian": (gaussian, gaussian_density), "mixture": (mixture, mixture_density)}


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("name", PROCESSES)
def test_densities_are_exact(name, data):
    process, (denoise, density) = PROCESSES[name], DATA[data]
    ends = [
        (float(process.alpha_at(t)), float(process.sigma_at(t)))
        for t in (np.float64(process.t_min), np.float64(process.t_max))
    ]
    divergence = lh.exact_divergence(lh.probability_flow(denoise, process))
    times = lh.flow_times(process, 100)

    def log_prior(x):
        # Sampling's prior is not quite the data's marginal there; the flow is what is under test.
        return jnp.zeros(x.shape[0])

    got = jax.jit(lambda x: lh.log_likelihood(divergence, x, times, log_prior))(X)
    total = np.asarray(got.log_prob) + density(got.noise, *ends[1])
    # Fourth-order steps, whose order a table's kinks spoil; float32 keeps 1e-6 of some 20 nats.
    close = 5e-3 if name == "discrete" else 2e-3
    np.testing.assert_allclose(total, density(X, *ends[0]), atol=close)


def test_adaptive_steps_agree_with_fixed_ones():
    pytest.importorskip("diffrax")
    process = VP()
    divergence = lh.exact_divergence(lh.probability_flow(mixture, process))
    prior = lh.normal_prior(process)
    fixed = lh.log_likelihood(divergence, X, lh.flow_times(process, 100), prior)
    adaptive = lh.adaptive_log_likelihood(divergence, X, process, prior)
    np.testing.assert_allclose(adaptive.log_prob, fixed.log_prob, atol=1e-3)
    exact = mixture_density(X, *(float(at(process.t_min)) for at in (
        process.alpha_at, process.sigma_at)))  # fmt: skip
    # The prior N(0, 1) is off by the 0.7% of the data that VP leaves at its end.
    np.testing.assert_allclose(adaptive.log_prob, exact, atol=0.03)


@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_the_divergence_is_estimated_without_bias(kind):
    field = lh.probability_flow(gaussian, VP())
    n, t = 8192, jnp.float32(0.4)
    x = jnp.broadcast_to(X[:1], (n, 2))
    probe = lh.probes(keys(n, kind), (2,), kind)
    value, estimates = jax.jit(lambda: lh.hutchinson(field, probe)(x, t))()
    same, exact = lh.exact_divergence(field)(X, t)
    np.testing.assert_allclose(value[0], same[0], rtol=1e-5)
    error = float(jnp.std(estimates)) / n**0.5
    assert abs(float(estimates.mean()) - float(exact[0])) < 4 * error
    assert error > 1e-4


def test_probes_have_unit_covariance():
    signs = lh.probes(keys(64, "signs"), (3, 2))
    assert set(np.unique(signs)) == {-1.0, 1.0}


def test_bits_per_dim_of_uniform_grey_levels_are_eight():
    """A density of 1/255 for each level wide is that of pixels uniform over [-1, 1] and a bit."""
    size = 12
    log_prob = jnp.full(3, -size * np.log(256 / 127.5), jnp.float32)
    np.testing.assert_allclose(lh.bits_per_dim(log_prob, size, lh.PIXEL_BITS), 8.0, rtol=1e-6)


def test_dequantized_levels_fill_their_bins():
    levels = jnp.arange(256, dtype=jnp.float32)[None]
    low, middle = (lh.dequantized(levels, jnp.full_like(levels, u)) for u in (0.0, 0.5))
    np.testing.assert_allclose(middle, levels / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(middle - low, 0.5 / 127.5, atol=1e-6)


def test_times_follow_the_noise():
    times = lh.flow_times(EDM(), 10)
    np.testing.assert_allclose(np.diff(np.log(times)), np.log(80 / 0.002) / 10, rtol=1e-3)
    assert (times[0], times[-1]) == (0.002, 80.0)
