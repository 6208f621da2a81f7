"""Reductions are those that their names promise."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.losses import reconstruction

RANDOM = np.random.default_rng(0)
IMAGE, TARGET = (jnp.asarray(RANDOM.normal(size=(2, 4, 6, 3)), jnp.float32) for _ in range(2))
DISTANCE = jnp.array([0.25, 0.5])
VALUES = 4 * 6 * 3


def test_errors():
    difference = np.asarray(IMAGE) - np.asarray(TARGET)
    np.testing.assert_allclose(reconstruction.l1(IMAGE, TARGET), np.abs(difference), rtol=1e-6)
    np.testing.assert_allclose(reconstruction.l2(IMAGE, TARGET), difference**2, rtol=1e-6)
    assert reconstruction.l1(IMAGE.astype(jnp.bfloat16), TARGET).dtype == jnp.float32


def test_published_kl_sums_over_the_image():
    error = reconstruction.l1(IMAGE, TARGET)
    # The perceptual distance of an image counts once for each of its values.
    want = (float(error.sum()) + 2.0 * float(DISTANCE.sum()) * VALUES) / 2
    assert reconstruction.published_kl(error, DISTANCE, 2.0) == pytest.approx(want, rel=1e-5)
    with_logvar = reconstruction.published_kl(error, DISTANCE, 2.0, jnp.asarray(0.5))
    assert with_logvar == pytest.approx(want / np.exp(0.5) + 0.5 * VALUES, rel=1e-5)


def test_published_vq_is_a_mean():
    error = reconstruction.l1(IMAGE, TARGET)
    want = float(error.mean()) + 2.0 * float(DISTANCE.mean())
    assert reconstruction.published_vq(error, DISTANCE, 2.0) == pytest.approx(want, rel=1e-5)


def test_per_pixel_does_not_depend_on_the_size():
    error = reconstruction.l1(IMAGE, TARGET)
    small = reconstruction.per_pixel(error, DISTANCE, 2.0, 0.1)
    large = reconstruction.per_pixel(jnp.tile(error, (1, 3, 2, 1)), DISTANCE, 2.0, 0.1)
    assert large == pytest.approx(float(small), rel=1e-5)
    whole = reconstruction.published_kl(error, DISTANCE, 2.0, 0.1)
    assert small == pytest.approx(float(whole) / VALUES, rel=1e-5)


def test_divergences():
    assert reconstruction.divergence_per_image(jnp.array([2.0, 4.0])) == 3
    assert reconstruction.divergence_per_value(jnp.array([2.0, 4.0]), 6) == 0.5


def test_binary_cross_entropy_is_that_of_its_formula_and_of_no_number_too_large():
    logits = jnp.asarray([[-2.0, 0.0], [0.5, 3.0]]).reshape(1, 2, 2, 1)
    target = jnp.asarray([[0.0, 1.0], [1.0, 0.0]]).reshape(1, 2, 2, 1)
    share = 1 / (1 + np.exp(-np.asarray(logits)))
    expected = -np.where(target == 1, np.log(share), np.log(1 - share)).mean()
    np.testing.assert_allclose(reconstruction.binary_cross_entropy(logits, target), expected, 1e-6)
    far = reconstruction.binary_cross_entropy(1e4 * logits, target)
    np.testing.assert_allclose(far, (3e4 + np.log(2)) / 4, rtol=1e-6)
