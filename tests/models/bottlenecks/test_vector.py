"""The codebook: nearest vectors, ties, blocks, gradients and values that are not finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks import Codebook, Gaussian, Point, nearest
from ldm_jax.models.bottlenecks.vector import ROWS


def _codebook(vectors):
    return {"params": {"embedding": {"embedding": jnp.asarray(vectors, jnp.float32)}}}


# Fewer rows than a block, some blocks, and a rest.
@pytest.mark.parametrize("rows", [1, 2 * ROWS, 2 * ROWS + 3])
def test_nearest_is_the_least_distance_in_float64(rows):
    random = np.random.default_rng(0)
    z, vectors = random.normal(size=(rows, 3)), random.normal(size=(50, 3))
    distance = np.square(z[:, None] - vectors[None]).sum(-1)
    found = nearest(jnp.asarray(z, jnp.float32), jnp.asarray(vectors, jnp.float32))
    np.testing.assert_array_equal(found, distance.argmin(1))


def test_close_vectors_far_from_the_origin_are_told_apart():
    # |z|² − 2 z·e + |e|² has no digit left here: 1e8 has steps of 8 in float32.
    vectors = jnp.array([[1e4, 0.0], [1e4, 0.1], [1e4, 0.2]])
    np.testing.assert_array_equal(nearest(vectors + jnp.array([[0.0, 0.03]]), vectors), [0, 1, 2])


def test_the_lowest_of_equally_near_vectors_is_taken():
    vectors = jnp.array([[2.0], [1.0], [-1.0], [1.0]])
    np.testing.assert_array_equal(nearest(jnp.array([[0.0], [0.9]]), vectors), [1, 1])


def test_memory_grows_with_blocks_and_not_with_the_image():
    z, vectors = jnp.zeros((1, 64, 64, 4)), jnp.zeros((16384, 4))
    quantize = jax.jit(Codebook(cfg.VQ(16384), 4).apply)
    memory = quantize.lower(_codebook(vectors), z).compile().memory_analysis()
    # All distances at once would take 256 MiB, a block of them 8 MiB.
    assert memory.temp_size_in_bytes < 2**25


def test_codebook_replaces_latents_and_passes_gradients():
    variables = _codebook([[0.0, 0.0], [1.0, 1.0]])
    z = jnp.array([[0.1, 0.2], [0.7, 0.9]]).reshape(1, 1, 2, 2)
    found = Codebook(cfg.VQ(2), 2).apply(variables, z)
    np.testing.assert_array_equal(found.indices, [[[0, 1]]])
    np.testing.assert_allclose(found.latents.reshape(2, 2), [[0, 0], [1, 1]], atol=1e-7)
    gradient = jax.grad(lambda z: jnp.sum(3 * Codebook(cfg.VQ(2), 2).apply(variables, z).latents))(
        z
    )
    np.testing.assert_array_equal(gradient, jnp.full_like(z, 3))


def test_latents_that_are_not_finite_stay_so():
    z = jnp.array([np.nan, np.inf, 0.4]).reshape(1, 1, 3, 1)
    found = Codebook(cfg.VQ(2), 1).apply(_codebook([[0.0], [1.0]]), z).latents.ravel()
    np.testing.assert_array_equal(np.isfinite(found), [False, False, True])


def test_a_fresh_codebook_is_small_and_without_repeats():
    variables = Codebook(cfg.VQ(64), 3).init(jax.random.key(0), jnp.zeros((1, 1, 1, 3)))
    vectors = variables["params"]["embedding"]["embedding"]
    assert vectors.shape == (64, 3) and vectors.dtype == jnp.float32
    assert jnp.abs(vectors).max() <= 1 / 64 and len(np.unique(vectors, axis=0)) == 64


def test_both_encodings_are_sampled_alike():
    latents, noise = jnp.full((1, 2, 2, 3), 2.0), jnp.ones((1, 2, 2, 3))
    spread = Gaussian(latents, jnp.full((1, 2, 2, 3), np.log(9.0)))
    np.testing.assert_array_equal(spread.mode, latents)
    np.testing.assert_allclose(spread.sample(noise), latents + 3, rtol=1e-6)
    np.testing.assert_array_equal(Point(latents).mode, latents)
    np.testing.assert_array_equal(Point(latents).sample(noise), latents)
