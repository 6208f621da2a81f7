"""Posteriors, bounds, hybrid gradients and score losses against guided-diffusion and score_sde.

`golden/` holds what the originals compute; its README says how. Where they are wrong, the tests
say what they do and hold ours against the truth.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion import losses, timesteps, weightings
from ldm_jax.diffusion.parameterization import q_sample, split_variance, target, to_prediction
from ldm_jax.diffusion.posterior import (
    discretized_log_likelihood,
    posterior_tables,
    prior_bits,
    vlb_terms,
)
from ldm_jax.diffusion.processes import VE, VP, SubVP
from ldm_jax.diffusion.schedules import NoiseSchedule

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def guided():
    with np.load(GOLDEN / "guided_diffusion.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def score_sde():
    with np.load(GOLDEN / "score_sde_losses.npz") as file:
        return dict(file)


def chain(guided, name):
    """Schedule and posteriors of a chain, and its examples: x0, x_t, t and the output."""
    schedule = NoiseSchedule(guided[f"{name}.alpha_bar"])
    t = jnp.asarray(guided[f"{name}.t"])
    x0, noise, output = (jnp.asarray(guided[key]) for key in ("x0", "noise", "output"))
    alpha, sigma = (jnp.asarray(v, jnp.float32)[t] for v in (schedule.alpha, schedule.sigma))
    x = q_sample(x0, noise, alpha, sigma)
    return posterior_tables(schedule.alpha_bar), x0, x, noise, t, output, alpha, sigma


@pytest.mark.parametrize("name", ["linear1000", "cosine1000"])
def test_posteriors(guided, name):
    tables = posterior_tables(guided[f"{name}.alpha_bar"])
    # products of (1 - beta) keep beta to 1e-16 / beta, and the smallest is 4e-5
    for ours, theirs in (
        (tables.x0_coefficient, "x0_coefficient"),
        (tables.x_coefficient, "x_coefficient"),
        (np.exp(tables.log_beta_tilde[1:]), "beta_tilde"),
        (tables.log_beta_tilde, "log_beta_tilde"),
    ):
        expected = guided[f"{name}.{theirs}"][-len(ours) :]
        np.testing.assert_allclose(ours, expected, rtol=1e-10)


@pytest.mark.parametrize("name", ["linear1000", "cosine1000", "linear250"])
def test_terms_of_the_bound(guided, name):
    posterior, x0, x, _, t, output, alpha, sigma = chain(guided, name)
    eps, share = split_variance(output)
    prediction = to_prediction(eps, x, alpha, sigma, "eps")
    terms = jax.jit(lambda prediction, fixed: vlb_terms(posterior, prediction, x0, t, fixed=fixed),
                    static_argnums=1)  # fmt: skip
    for kind, given, fixed in (
        ("learned", prediction._replace(variance=share), "beta"),
        ("beta", prediction, "beta"),
        ("beta_tilde", prediction, "beta_tilde"),
    ):
        ours = terms(given, fixed)
        np.testing.assert_allclose(ours, guided[f"{name}.vlb_{kind}_exact"], rtol=3e-5)
        np.testing.assert_array_equal(
            guided[f"{name}.vlb_{kind}"][2:], guided[f"{name}.vlb_{kind}_exact"][2:]
        )
        # Their tanh for the normal distribution is off in L_0 alone, by a few parts in 1e4.
        assert not np.allclose(ours[:2], guided[f"{name}.vlb_{kind}"][:2], rtol=1e-4)
        np.testing.assert_allclose(ours, guided[f"{name}.vlb_{kind}"], rtol=2e-3)
    np.testing.assert_allclose(
        prior_bits(x0, guided[f"{name}.alpha_bar"][-1]), guided[f"{name}.prior"], rtol=1e-4
    )
    learned = prediction._replace(variance=share)
    total = losses.vlb_loss(posterior, learned, x0, t)
    np.testing.assert_allclose(total, guided[f"{name}.rescaled_kl"], rtol=2e-3)


@pytest.mark.parametrize("name", ["linear1000", "cosine1000", "linear250"])
def test_hybrid_loss_and_its_gradient(guided, name):
    posterior, x0, x, noise, t, output, alpha, sigma = chain(guided, name)

    @jax.jit
    @jax.value_and_grad
    def hybrid(output):
        eps, share = split_variance(output)
        prediction = to_prediction(eps, x, alpha, sigma, "eps")._replace(variance=share)
        each = losses.distance_loss(eps, noise) + 0.001 * losses.variance_loss(
            posterior, prediction, x0, t
        )
        return jnp.sum(each)

    loss, gradient = hybrid(output)
    np.testing.assert_allclose(loss, np.sum(guided[f"{name}.hybrid_exact"]), rtol=1e-4)
    theirs = guided[f"{name}.hybrid_gradient_exact"]
    np.testing.assert_allclose(gradient[..., :3], theirs[..., :3], rtol=1e-5, atol=1e-8)
    # Of the variance it is a difference that may be near 0: relative to its example's largest.
    scale = np.abs(theirs[..., 3:]).max(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(gradient[..., 3:] / scale, theirs[..., 3:] / scale, atol=1e-4)


def test_their_likelihood_of_far_pixels_is_cut_off_and_teaches_nothing(guided):
    """guided-diffusion clips the mass of a bin at 1e-12 and has a tanh for the normal's: 50
    standard deviations off, the log-likelihood is -27.6 whatever the mean, with no gradient."""
    x, mean, log_scale = (jnp.asarray(guided[f"far.{key}"]) for key in ("x", "mean", "log_scale"))
    np.testing.assert_allclose(guided["far.value"], np.full((1, 2), np.log(1e-12)), rtol=1e-5)
    assert not guided["far.gradient"].any()
    likelihood = jax.jit(
        jax.value_and_grad(lambda mean: jnp.sum(discretized_log_likelihood(x, mean, log_scale)))
    )
    value, gradient = likelihood(mean)
    # the density at the edge of the bin that is nearer the mean, over its slope: Mills' ratio
    edge = (np.abs(np.asarray(x - mean)) - 1 / 255) / 0.02
    mass = -0.5 * edge**2 - np.log(edge * np.sqrt(2 * np.pi))
    assert float(value) == pytest.approx(mass.sum(), rel=1e-3)
    assert np.all(np.sign(gradient) == np.sign(x - mean)) and np.all(np.abs(gradient) > 1000)


def test_second_moment_sampling(guided):
    """Their weights after each of eight batches, losses seen one after the other."""
    state = timesteps.SecondMoment.create(5)
    observe = jax.jit(timesteps.SecondMoment.observe)
    for t, batch, expected in zip(
        guided["resample.t"], guided["resample.losses"], guided["resample.probabilities"],
        strict=True,
    ):  # fmt: skip
        state = observe(state, jnp.asarray(t), jnp.asarray(batch, jnp.float32))
        np.testing.assert_allclose(state.probabilities(), expected, rtol=1e-5)


@pytest.mark.parametrize("process", [VP(t_min=1e-5), SubVP(t_min=1e-5), VE()])
def test_score_matching_in_continuous_time(score_sde, process):
    """Half the sum over an example, weighted by sigma^2 and by g^2."""
    name = type(process).__name__
    x0, noise, output = (jnp.asarray(score_sde[key]) for key in ("x0", "noise", "output"))
    t = process.time_at(jnp.asarray(score_sde["u"]))
    alpha, sigma = process.alpha_at(t), process.sigma_at(t)
    # At t = 1e-3 theirs has 1 - exp(-1e-4) in float32: three digits of sigma, which the
    # likelihood of sub-VP divides by at fourth power. Ours is expm1 and keeps all of them.
    rtol = {"VE": 1e-5}.get(name, 4e-3)
    np.testing.assert_allclose(sigma, score_sde[f"{name}.std"], rtol=rtol)
    np.testing.assert_allclose(sigma[1:], score_sde[f"{name}.std"][1:], rtol=1e-5)
    # Their VP networks say -score sigma, which is eps; VE's the score.
    kind = "score" if name == "VE" else "eps"
    loss = losses.distance_loss(output, target(x0, noise, alpha, sigma, kind))
    own, size = weightings.output_factor(kind, alpha, sigma), x0[0].size
    simple = weightings.output_factor("eps", alpha, sigma) / own * loss
    np.testing.assert_allclose(simple * size / 2, score_sde[f"{name}.simple"], rtol=1e-4)
    weight = weightings.likelihood(alpha, sigma, process.diffusion_at(t)) / own
    bound = weight * loss * size
    np.testing.assert_allclose(bound[1:], score_sde[f"{name}.likelihood"][1:], rtol=1e-4)
    np.testing.assert_allclose(bound[0], score_sde[f"{name}.likelihood"][0], rtol=4 * rtol)
