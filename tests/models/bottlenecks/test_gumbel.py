"""The Gumbel bottleneck: its limit, its frequencies, its gradients and its divergence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks import GumbelCodebook

Z = jax.random.normal(jax.random.key(1), (1, 2, 2, 3))
NOISE = jax.random.gumbel(jax.random.key(2), (1, 2, 2, 4))


@pytest.fixture(scope="module")
def variables():
    return GumbelCodebook(cfg.Gumbel(4), 3).init(jax.random.key(0), Z)


def _apply(variables, *args, **settings):
    return GumbelCodebook(cfg.Gumbel(4, **settings), 3).apply(variables, *args)


def test_without_noise_the_likeliest_vector_is_taken(variables):
    found = _apply(variables, Z, straight_through=False)
    logits = Z @ variables["params"]["proj"]["kernel"]
    np.testing.assert_array_equal(found.indices, jnp.argmax(logits, -1))
    vectors = variables["params"]["embed"]["embedding"]
    np.testing.assert_allclose(found.latents, vectors[found.indices], rtol=1e-6)
    again = GumbelCodebook(cfg.Gumbel(4), 3).apply(variables, found.indices, method="lookup")
    np.testing.assert_allclose(found.latents, again, rtol=1e-6)


def test_at_temperature_zero_the_mixture_is_the_drawn_vector(variables):
    soft = _apply(variables, Z, NOISE, 1e-3, straight_through=False)
    hard = _apply(variables, Z, NOISE, 1.0)
    np.testing.assert_array_equal(soft.indices, hard.indices)
    np.testing.assert_allclose(soft.latents, hard.latents, atol=1e-4)
    warm = _apply(variables, Z, NOISE, 100.0, straight_through=False)
    vectors = variables["params"]["embed"]["embedding"]
    mean = jnp.broadcast_to(vectors.mean(0), Z.shape)
    np.testing.assert_allclose(warm.latents, mean, atol=0.05)


def test_vectors_are_drawn_with_their_probabilities(variables):
    count = 4096
    z = jnp.broadcast_to(Z[:, :1, :1], (1, 1, count, 3))
    noise = jax.random.gumbel(jax.random.key(7), (1, 1, count, 4))
    found = _apply(variables, z, noise)
    want = jax.nn.softmax(z[0, 0, 0] @ variables["params"]["proj"]["kernel"])
    share = np.bincount(np.asarray(found.indices).ravel(), minlength=4) / count
    # Four standard deviations of a share.
    np.testing.assert_allclose(share, want, atol=4 * 0.5 / np.sqrt(count))


def test_a_drawn_vector_has_the_gradients_of_the_mixture(variables):
    def gradient(straight_through):
        return jax.grad(
            lambda z: _apply(variables, z, NOISE, straight_through=straight_through).latents.sum()
        )(Z)

    np.testing.assert_allclose(gradient(True), gradient(False), rtol=1e-5, atol=1e-6)


def test_the_divergence_is_zero_for_uniform_and_at_most_that_of_one_code(variables):
    flat = jax.tree.map(jnp.zeros_like, variables)
    assert abs(_apply(flat, Z).terms["uniform_kl"]) < 1e-6
    sure = _apply(variables, 1e3 * Z, kl_weight=0.1)
    np.testing.assert_allclose(sure.terms["uniform_kl"], np.log(4), rtol=1e-4)
    np.testing.assert_allclose(sure.loss, 0.1 * np.log(4), rtol=1e-4)


def test_latents_that_are_not_finite_stay_so(variables):
    found = _apply(variables, Z.at[0, 0, 0, 0].set(jnp.inf))
    np.testing.assert_array_equal(
        np.isfinite(found.latents).all(-1), [[[False, True], [True, True]]]
    )
