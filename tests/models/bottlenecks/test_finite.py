"""Codes without a codebook: numbers and values of each other, boundaries, gradients, entropies."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks import FiniteScalar, LookupFree
from ldm_jax.models.bottlenecks.finite import bound


@pytest.mark.parametrize("levels", [(8, 5, 5), (2, 3), (4,), (7, 6, 5, 4)])
def test_every_number_is_one_code_and_comes_back(levels):
    module = FiniteScalar(cfg.FSQ(levels))
    size = module.config.size
    numbers = jnp.arange(size).reshape(1, 1, size)
    values = module.apply({}, numbers, method="lookup")
    assert len(np.unique(values.reshape(size, -1), axis=0)) == size
    assert values.min() >= -1 and values.max() <= 1
    # Latents that are bounded to these values: the inverse of `bound`, in float64.
    count = np.asarray(levels, np.float64)
    half, offset = (count - 1) * (1 - 1e-3) / 2, np.where(count % 2 == 1, 0, 0.5)
    inside = (np.asarray(values) * (count // 2) + offset) / half
    z = np.arctanh(np.clip(inside, -0.9999, 0.9999)) - np.tan(offset / half)
    found = module.apply({}, jnp.asarray(z, jnp.float32))
    np.testing.assert_array_equal(found.indices, numbers)
    np.testing.assert_allclose(found.latents, values, atol=1e-6)


def test_digits_are_counted_from_the_first_channel():
    z = jnp.array([[-9.0, -9.0], [9.0, -9.0], [-9.0, 9.0]]).reshape(1, 1, 3, 2)
    found = FiniteScalar(cfg.FSQ((8, 5))).apply({}, z)
    np.testing.assert_array_equal(found.indices.ravel(), [0, 7, 32])


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8])
def test_latents_anywhere_reach_all_levels_and_no_more(count):
    z = jnp.linspace(-20, 20, 4001).reshape(1, 1, -1, 1)
    found = FiniteScalar(cfg.FSQ((count,))).apply({}, z)
    np.testing.assert_array_equal(np.unique(found.indices), np.arange(count))
    assert np.all(np.diff(found.indices.ravel()) >= 0)


def test_gradients_are_those_of_the_bound():
    z = jax.random.normal(jax.random.key(0), (1, 2, 2, 2))
    levels = (5, 4)
    module = FiniteScalar(cfg.FSQ(levels))
    got = jax.grad(lambda z: module.apply({}, z).latents.sum())(z)
    halves = jnp.array([2.0, 2.0]).reshape(1, 1, 1, 2)
    want = jax.grad(lambda z: (bound(z, levels) / halves).sum())(z)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_signs_are_bits_and_come_back():
    module = LookupFree(cfg.LFQ(), 3)
    z = jnp.array([[-1.0, -2.0, -3.0], [0.5, -1.0, -1.0], [1.0, 1.0, 1.0]]).reshape(1, 1, 3, 3)
    found = module.apply({}, z)
    np.testing.assert_array_equal(found.indices, [[[0, 1, 7]]])
    np.testing.assert_array_equal(found.latents, jnp.sign(z))
    np.testing.assert_array_equal(module.apply({}, found.indices, method="lookup"), jnp.sign(z))
    gradient = jax.grad(lambda z: jnp.sum(2 * module.apply({}, z).latents))(z)
    np.testing.assert_array_equal(gradient, jnp.full_like(z, 2))
    np.testing.assert_allclose(found.terms["commitment"], np.mean((z - jnp.sign(z)) ** 2))


def test_the_entropy_of_a_latent_is_that_over_all_codes():
    z = np.random.default_rng(0).normal(size=(1, 2, 2, 3)).astype(np.float32)
    found = LookupFree(cfg.LFQ(temperature=1.7), 3).apply({}, jnp.asarray(z))
    codes = np.array(list(itertools.product([-1, 1], repeat=3)))
    logits = -np.square(z[..., None, :] - codes).sum(-1) / 1.7
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    np.testing.assert_allclose(
        found.terms["code_entropy"], -(p * np.log(p)).sum(-1).mean(), rtol=1e-5
    )
    # That of the batch is an upper bound of the entropy of the mean over all codes.
    mean = p.mean((0, 1, 2))
    assert found.terms["batch_entropy"] >= -(mean * np.log(mean)).sum()


def test_entropies_at_their_ends():
    module = LookupFree(cfg.LFQ(beta=0.0, entropy_weight=2.0), 2)
    every = jnp.array([[50.0, 50], [50, -50], [-50, 50], [-50, -50]]).reshape(1, 2, 2, 2)
    found = module.apply({}, every)
    np.testing.assert_allclose(found.terms["code_entropy"], 0, atol=1e-6)
    np.testing.assert_allclose(found.terms["batch_entropy"], np.log(4), rtol=1e-6)
    np.testing.assert_allclose(found.loss, -2 * np.log(4), rtol=1e-6)
    gradient = jax.grad(lambda z: module.apply({}, z).loss)(jnp.full((1, 1, 1, 2), 200.0))
    assert np.isfinite(gradient).all()
