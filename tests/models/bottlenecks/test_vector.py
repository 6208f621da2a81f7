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


LATENTS = jax.random.normal(jax.random.key(3), (2, 2, 3, 2))
VECTORS = jax.random.normal(jax.random.key(4), (5, 2))


def _quantize(z, vectors, **settings):
    module = Codebook(cfg.VQ(len(vectors), **settings), z.shape[-1])
    return module.apply(_codebook(vectors), z)


@pytest.mark.parametrize("weighting", ["paper", "legacy"])
def test_both_weightings_of_the_terms(weighting):
    found = _quantize(LATENTS, VECTORS, beta=0.3, weighting=weighting)
    distance = np.mean((LATENTS - VECTORS[found.indices]) ** 2)
    np.testing.assert_allclose(found.terms["commitment"], distance, rtol=1e-5)
    np.testing.assert_allclose(found.terms["codebook"], distance, rtol=1e-5)
    np.testing.assert_allclose(found.loss, 1.3 * distance, rtol=1e-5)
    # d/dz of the commitment term is 2 (z - e) / n, d/de of the codebook term its opposite.
    to_z, to_vectors = jax.grad(
        lambda *x: _quantize(*x, beta=0.3, weighting=weighting).loss, argnums=(0, 1)
    )(LATENTS, VECTORS)
    pull = 2 * (LATENTS - VECTORS[found.indices]) / LATENTS.size
    weights = (0.3, 1.0) if weighting == "paper" else (1.0, 0.3)
    np.testing.assert_allclose(to_z, weights[0] * pull, rtol=1e-5)
    pulls = jax.ops.segment_sum(pull.reshape(-1, 2), found.indices.ravel(), 5)
    np.testing.assert_allclose(to_vectors, -weights[1] * pulls, rtol=1e-4, atol=1e-7)


def test_averaged_vectors_have_no_gradient_and_no_term():
    def loss(vectors):
        found = _quantize(LATENTS, vectors, ema_decay=0.9)
        return found.loss + jnp.sum(found.latents**2)

    np.testing.assert_array_equal(jax.grad(loss)(VECTORS), jnp.zeros_like(VECTORS))
    assert set(_quantize(LATENTS, VECTORS, ema_decay=0.9).terms) == {"commitment"}


def test_cosine_compares_and_decodes_at_length_one():
    found = _quantize(LATENTS, VECTORS, cosine=True)
    units = VECTORS / np.linalg.norm(VECTORS, axis=-1, keepdims=True)
    np.testing.assert_array_equal(found.indices, np.argmax(LATENTS @ units.T, axis=-1))
    np.testing.assert_allclose(found.latents, units[found.indices], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.compared, axis=-1), 1, rtol=1e-6)
    gradient = jax.grad(lambda z: _quantize(z, VECTORS, cosine=True).loss)(jnp.zeros_like(LATENTS))
    assert np.isfinite(gradient).all()


def test_a_narrow_lookup_projects_there_and_back():
    module = Codebook(cfg.VQ(6, code_dim=2), 5)
    z = jax.random.normal(jax.random.key(5), (1, 2, 2, 5))
    variables = module.init(jax.random.key(0), z)
    found = module.apply(variables, z)
    assert variables["params"]["embedding"]["embedding"].shape == (6, 2)
    assert found.latents.shape == z.shape and found.compared.shape == (1, 2, 2, 2)
    again = module.apply(variables, found.indices, method="lookup")
    np.testing.assert_allclose(found.latents, again, atol=1e-6)
