"""Posteriors are Bayes' rule, bins hold all the mass, and the bound is exact for an exact model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ldm_jax.core.typing import Prediction
from ldm_jax.diffusion import posterior as post
from ldm_jax.diffusion.schedules import NoiseSchedule


@pytest.fixture(scope="module")
def schedule():
    return NoiseSchedule.create("linear", 1000, 1e-4, 0.02)


def test_posterior_is_bayes_rule(schedule):
    tables, a = post.posterior_tables(schedule.alpha_bar), schedule.alpha_bar
    t = np.array([1, 10, 500, 999])
    x0, x = 0.3, -0.8
    beta = 1 - a[t] / a[t - 1]
    # N(x; sqrt(1 - beta) y, beta) N(y; sqrt(a[t - 1]) x0, 1 - a[t - 1]) as a Gaussian in y
    precision = (1 - beta) / beta + 1 / (1 - a[t - 1])
    mean = (np.sqrt(1 - beta) * x / beta + np.sqrt(a[t - 1]) * x0 / (1 - a[t - 1])) / precision
    np.testing.assert_allclose(np.exp(-tables.log_beta_tilde[t]), precision, rtol=1e-9)
    at = tables.at(jnp.asarray(t))
    ours = post.posterior_mean(at, jnp.full((4, 2), x0), jnp.full((4, 2), x))
    np.testing.assert_allclose(ours[:, 0], mean, rtol=2e-6)


def test_tables_at_the_ends(schedule):
    tables = post.posterior_tables(schedule.alpha_bar)
    assert tables.x0_coefficient[0] == 1 and tables.x_coefficient[0] == 0
    assert tables.log_beta_tilde[0] == tables.log_beta_tilde[1]
    ended = post.posterior_tables(np.array([0.9, 0.5, 0.0]))
    assert all(np.isfinite(values).all() for values in ended) and ended.x_coefficient[2] == 0
    assert post.posterior_tables(np.array([0.9])).log_beta_tilde[0] == pytest.approx(np.log(0.1))


def test_variance_lies_between_its_bounds(schedule):
    tables = post.posterior_tables(schedule.alpha_bar)
    t = jnp.array([0, 700])
    at = tables.at(t)
    share = jnp.array([[0.0, 1.0], [0.5, 0.25]])
    learned = post.log_variance(at, share)
    low, high = tables.log_beta_tilde, tables.log_beta
    expected = [[low[0], high[0]], [(low[700] + high[700]) / 2, 0.75 * low[700] + 0.25 * high[700]]]
    np.testing.assert_allclose(learned, expected, rtol=1e-6)
    fixed = post.log_variance(at, post.fixed_share(t, "beta"))
    np.testing.assert_allclose(fixed, [low[0], high[700]], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-4, 3e-3, 0.05, 0.16, 0.4, 3.0, 50.0])
def test_bins_agree_with_the_exact_mass(scale):
    """scipy in float64, where its own difference of distribution functions can be trusted."""
    values = np.linspace(-1, 1, 256)
    mean = 0.317
    edges = np.append(np.append(-np.inf, (values[1:] + values[:-1]) / 2), np.inf)
    lower, upper = (edges[:-1] - mean) / scale, (edges[1:] - mean) / scale
    flip = lower > 0
    lower, upper = np.where(flip, -upper, lower), np.where(flip, -lower, upper)
    with np.errstate(divide="ignore"):
        exact = np.log(stats.norm.cdf(upper) - stats.norm.cdf(lower))
    ours = jax.jit(post.discretized_log_likelihood)(
        jnp.asarray(values, jnp.float32)[None],
        jnp.full((1, 256), mean),
        jnp.full((1, 1), np.log(scale)),
    )[0]
    trusted = exact > -600
    # x - mean is known to 6e-8 in float32, and is divided by scale
    np.testing.assert_allclose(
        np.asarray(ours)[trusted], exact[trusted], rtol=3e-5 + 1e-7 / scale, atol=3e-5
    )
    assert np.isfinite(ours).all()
    assert np.sum(np.exp(np.asarray(ours, np.float64))) == pytest.approx(1, abs=1e-4)


def test_bins_have_finite_gradients_everywhere():
    x = jnp.asarray(np.linspace(-1, 1, 9), jnp.float32)[None]

    def total(mean, log_scale):
        return jnp.sum(post.discretized_log_likelihood(x, mean, log_scale))

    gradient = jax.jit(jax.grad(total, (0, 1)))
    for log_scale in (-9.0, -4.0, -1.8, 0.0, 4.0):
        pull, widen = gradient(x + 0.2, jnp.full((1, 9), log_scale))
        assert np.isfinite(pull).all() and np.isfinite(widen).all()
        assert np.all(np.asarray(pull)[0, 1:8] < 0), "even far off, the mean is drawn to the value"


def test_bound_of_the_exact_model_is_the_entropy():
    """Data N(0, s^2): every reverse step is Gaussian, with a mean and a variance that are known.

    With L_0 a density the bound is tight but for the chain being finite: its reverse steps are
    exact, so it equals the expected negative log-density.
    """
    schedule = NoiseSchedule.create("linear", 50, 1e-3, 0.2)
    tables, a, s2 = post.posterior_tables(schedule.alpha_bar), schedule.alpha_bar, 0.25
    rng = np.random.default_rng(0)
    n = 4000
    x0 = rng.normal(0, np.sqrt(s2), (n, 1))
    total = np.asarray(post.prior_bits(jnp.asarray(x0, jnp.float32), a[-1]), np.float64)

    @jax.jit
    def term(x0, guess, share, t):
        return post.vlb_terms(tables, Prediction(guess, guess, share), x0, t, bins=None)

    for t in range(50):
        x = np.sqrt(a[t]) * x0 + np.sqrt(1 - a[t]) * rng.normal(size=x0.shape)
        spread = a[t] * s2 + 1 - a[t]
        guess = np.sqrt(a[t]) * s2 / spread * x
        # Var(x_{t-1} | x_t) = beta_tilde + coefficient^2 Var(x0 | x_t); at t = 0 the latter alone.
        left = s2 * (1 - a[t]) / spread
        variance = left if t == 0 else (
            np.exp(tables.log_beta_tilde[t]) + tables.x0_coefficient[t] ** 2 * left
        )  # fmt: skip
        share = (np.log(variance) - tables.log_beta_tilde[t]) / tables.log_ratio[t]
        share = np.full_like(x0, share)
        t = jnp.full((n,), t)
        total += np.asarray(term(*(jnp.asarray(v, jnp.float32) for v in (x0, guess, share)), t))
    entropy = 0.5 * np.log2(2 * np.pi * np.e * s2)
    # 4000 draws: the standard error is about 0.01.
    assert np.mean(total) == pytest.approx(entropy, abs=4 * np.std(total) / np.sqrt(n))


def test_terms_in_float32_do_not_cancel(schedule):
    """A prediction off by a part in a thousand, at every level, against float64."""
    tables = post.posterior_tables(schedule.alpha_bar)
    t = np.array([1, 2, 20, 400, 999])
    x0 = np.random.default_rng(0).normal(size=(5, 16))
    guess = x0 * 1.001
    guess32, x032 = (jnp.asarray(v, jnp.float32) for v in (guess, x0))
    ours = jax.jit(post.vlb_terms)(tables, Prediction(guess32, guess32), x032, jnp.asarray(t))
    square = np.mean((guess - x0) ** 2, axis=1)
    weight = tables.x0_coefficient[t] ** 2 / (2 * np.exp(tables.log_beta_tilde[t]))
    # float32 knows the difference of x0 and guess to about 1e-4 of itself
    np.testing.assert_allclose(ours, weight * square / np.log(2), rtol=1e-3)
