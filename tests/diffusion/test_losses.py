"""The losses are one float32 number per example; weightings make all networks one loss on x0."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.core.names import PredictionKind
from ldm_jax.core.typing import Prediction
from ldm_jax.diffusion import losses, weightings
from ldm_jax.diffusion.parameterization import q_sample, target, to_prediction
from ldm_jax.diffusion.posterior import posterior_tables
from ldm_jax.diffusion.schedules import NoiseSchedule, zero_terminal_snr

SCHEDULE = NoiseSchedule.create("linear", 1000, 1e-4, 0.02)


def test_distance_is_per_example_and_float32():
    output = jnp.zeros((2, 2, 2, 1), jnp.bfloat16).at[1].set(3.0)
    loss = losses.distance_loss(output, jnp.ones((2, 2, 2, 1)))
    assert loss.dtype == jnp.float32
    np.testing.assert_array_equal(loss, [1.0, 4.0])
    np.testing.assert_array_equal(
        losses.distance_loss(output, jnp.ones((2, 2, 2, 1)), "l1"), [1.0, 2.0]
    )


def test_huber_lies_between_square_and_absolute_value():
    errors = jnp.array([[1e-4], [1e-3], [10.0], [1000.0]])
    loss = losses.distance_loss(errors, jnp.zeros_like(errors), "huber", 0.1)
    np.testing.assert_allclose(loss[:2], errors[:2, 0] ** 2, rtol=1e-4)
    np.testing.assert_allclose(loss[2:], 2 * 0.1 * errors[2:, 0], rtol=1.1e-2)
    slope = jax.grad(lambda e: losses.distance_loss(e, jnp.zeros((1, 1)), "huber")[0])
    assert slope(jnp.zeros((1, 1)))[0, 0] == 0


@pytest.mark.parametrize("kind", get_args(PredictionKind))
@pytest.mark.parametrize("power", [1.0, 37.0])
def test_output_factor_makes_every_network_one_loss_on_x0(kind, power):
    """`power` 37: an exploding process, whose noise is larger than the data."""
    alpha = jnp.array([0.99, 0.7, 0.2])
    sigma = jnp.sqrt(1 - alpha**2) * power
    x0, eps, error = jnp.ones((3, 4)), jnp.full((3, 4), 0.5), 0.1
    x = q_sample(x0, eps, alpha, sigma)
    guess = x0 + error
    guess_eps = (x - alpha[:, None] * guess) / sigma[:, None]
    loss = losses.distance_loss(
        target(guess, guess_eps, alpha, sigma, kind, 0.5),
        target(x0, eps, alpha, sigma, kind, 0.5),
    )
    factor = weightings.output_factor(kind, alpha, sigma, 0.5)
    # the difference of targets keeps some four digits of float32
    np.testing.assert_allclose(loss / factor, np.full(3, error**2), rtol=2e-3)


def test_named_weightings_are_their_papers_weights_on_eps():
    alpha_bar = jnp.array([0.99, 0.5, 0.1])
    alpha, sigma = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
    snr = weightings.snr(alpha, sigma)
    on_eps = weightings.output_factor("eps", alpha, sigma)
    pairs = [
        (weightings.min_snr(snr, 5.0), jnp.minimum(1, 5 / snr)),
        (weightings.p2(snr, 1.0, 0.5), 1 / (1 + snr) ** 0.5),
        (weightings.debiased(snr), 1 / jnp.sqrt(snr)),
    ]
    for ours, paper in pairs:
        np.testing.assert_allclose(ours / on_eps, paper, rtol=1e-5)
    # Karras 2022: lambda(sigma) with noise s = sigma / alpha and data of 0.5
    s = sigma / alpha
    np.testing.assert_allclose(
        weightings.output_factor("edm", alpha, sigma, 0.5), (s**2 + 0.25) / (s * 0.5) ** 2,
        rtol=1e-5,
    )  # fmt: skip


def test_the_bound_is_the_weighted_square_of_ho_equations_8_and_12():
    t = jnp.array([1, 300, 999])
    posterior = posterior_tables(SCHEDULE.alpha_bar)
    at = posterior.at(t)
    x0 = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8)), jnp.float32)
    guess = x0 + 0.25
    prediction = Prediction(guess, guess)
    vlb_loss = jax.jit(losses.vlb_loss)
    bound = vlb_loss(posterior, prediction, x0, t) / 1000 * np.log(2)
    kl = weightings.posterior_kl(at, at.log_beta_tilde)
    np.testing.assert_allclose(kl * 0.0625, bound, rtol=1e-4)
    # eq. 12 with sigma^2 = beta: beta^2 / (2 beta (1 - beta) (1 - alpha_bar)) on eps
    a, before = SCHEDULE.alpha_bar[t], SCHEDULE.alpha_bar[t - 1]
    beta = 1 - a / before
    on_eps = weightings.output_factor(
        "eps", *(jnp.asarray(v, jnp.float32) for v in (a**0.5, (1 - a) ** 0.5))
    )
    np.testing.assert_allclose(
        weightings.posterior_kl(at, at.log_beta) / on_eps, beta / (2 * (1 - beta) * (1 - a)),
        rtol=1e-4,
    )  # fmt: skip


def test_likelihood_weighting_is_the_bound_of_many_small_steps():
    """T times a step's KL goes to 1/2 g^2 per unit of time, here of a schedule of T steps."""
    t = jnp.array([200, 600])
    posterior = posterior_tables(SCHEDULE.alpha_bar)
    alpha, sigma = SCHEDULE.alpha_at(t), SCHEDULE.sigma_at(t)
    ours = weightings.likelihood(alpha, sigma, SCHEDULE.diffusion_at(t))
    at = posterior.at(t)
    # a step of beta 0.01 is not yet infinitely small
    np.testing.assert_allclose(ours, weightings.posterior_kl(at, at.log_beta), rtol=0.02)


def test_hybrid_bound_teaches_the_variance_alone():
    posterior = posterior_tables(SCHEDULE.alpha_bar)
    rng = np.random.default_rng(0)
    x0, x, output = (jnp.asarray(rng.normal(size=(4, 6)), jnp.float32) for _ in range(3))
    t = jnp.array([0, 1, 500, 999])
    alpha, sigma = SCHEDULE.alpha_at(t), SCHEDULE.sigma_at(t)

    def bound(output, share):
        prediction = to_prediction(output, x, alpha, sigma, "eps")._replace(variance=share)
        return jnp.sum(losses.variance_loss(posterior, prediction, x0, t))

    mean, variance = jax.jit(jax.grad(bound, (0, 1)))(output, jnp.full((4, 6), 0.4))
    assert not np.any(mean) and np.all(variance != 0)
    assert np.all(np.isfinite(variance))


@pytest.mark.parametrize("kind", ["eps", "x0", "v"])
def test_loss_of_the_best_network_for_gaussian_data(kind):
    """Data N(0, s2): the best guess of x0 is linear and its error s2 sigma^2 / (variance of x)."""
    s2, n = 0.49, 20000
    alpha = jnp.full((1,), 0.6)
    sigma = jnp.full((1,), 0.8)
    rng = np.random.default_rng(1)
    x0 = jnp.asarray(rng.normal(0, s2**0.5, (1, n)), jnp.float32)
    eps = jnp.asarray(rng.normal(size=(1, n)), jnp.float32)
    x = q_sample(x0, eps, alpha, sigma)
    variance = 0.36 * s2 + 0.64
    guess = 0.6 * s2 / variance * x
    best = target(guess, (x - 0.6 * guess) / 0.8, alpha, sigma, kind)
    loss = losses.distance_loss(best, target(x0, eps, alpha, sigma, kind))
    expected = weightings.output_factor(kind, alpha, sigma) * s2 * 0.64 / variance
    # the mean of n squares of a normal has a relative error of sqrt(2 / n) = 1%
    np.testing.assert_allclose(loss, expected, rtol=0.04)


def test_likelihood_weighting_ends_in_nothing_where_there_is_no_signal():
    """0, the limit, and not infinity times 0."""
    process = NoiseSchedule(zero_terminal_snr(SCHEDULE.alpha_bar))
    t = jnp.array([process.t_max - 1e-3, process.t_max])
    alpha, sigma = process.alpha_at(t), process.sigma_at(t)
    near, end = weightings.likelihood(alpha, sigma, process.diffusion_at(t))
    assert end == 0 and 0 < near < 1e-6
