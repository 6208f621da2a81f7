"""Adversarial losses have the values of their formulas, and push logits the right way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.losses import gan

REAL, FAKE = jnp.array([[2.0, 0.5], [-1.0, 0.0]]), jnp.array([-3.0, -0.5, 1.0])


def test_hinge():
    real, fake = np.mean([0, 0.5, 2, 1]), np.mean([0, 0.5, 2])
    assert gan.hinge_discriminator(REAL, FAKE) == pytest.approx((real + fake) / 2)
    assert gan.hinge_generator(FAKE) == pytest.approx(2.5 / 3)


def test_vanilla():
    real = np.mean(np.log1p(np.exp(-np.asarray(REAL, np.float64))))
    fake = np.mean(np.log1p(np.exp(np.asarray(FAKE, np.float64))))
    assert gan.vanilla_discriminator(REAL, FAKE) == pytest.approx((real + fake) / 2)
    saved = np.mean(np.log1p(np.exp(-np.asarray(FAKE, np.float64))))
    assert gan.vanilla_generator(FAKE) == pytest.approx(saved)
    assert np.isfinite(gan.vanilla_discriminator(-1e4 * jnp.ones(2), 1e4 * jnp.ones(2)))


@pytest.mark.parametrize("loss", [gan.hinge_generator, gan.vanilla_generator])
def test_generators_want_higher_logits(loss):
    assert (jax.grad(loss)(FAKE) < 0).all()


def test_r1_is_the_squared_slope_of_each_image():
    """With a quadratic discriminator, whose slope is known, of two patches to an image."""
    images = jnp.arange(24, dtype=jnp.float32).reshape(2, 2, 3, 2) / 10

    def discriminator(images):
        value = 0.5 * jnp.sum(images**2, axis=(1, 2, 3))
        return jnp.stack([value, 3 * value], axis=-1)  # mean 2 value: slope 2 image

    want = 10 / 2 * np.mean(np.sum((2 * np.asarray(images)) ** 2, axis=(1, 2, 3)))
    assert gan.r1_penalty(discriminator, images, 10.0) == pytest.approx(want)


def test_r1_differentiates_with_respect_to_the_discriminator():
    images = jnp.ones((2, 2, 2, 1))

    def penalty(scale):
        return gan.r1_penalty(lambda x: scale * x.sum((1, 2, 3)), images, 2.0)

    assert jax.grad(penalty)(3.0) == pytest.approx(2 * 4 * 3.0)


def test_lecam_averages_are_those_of_the_past():
    state = gan.lecam_update(gan.lecam_init(), REAL, FAKE, 0.9)
    # The first average is the first mean, not one tenth of it.
    want = np.mean(np.maximum(np.asarray(REAL) - np.mean(FAKE), 0) ** 2)
    want += np.mean(np.maximum(np.mean(REAL) - np.asarray(FAKE), 0) ** 2)
    assert gan.lecam_penalty(state, REAL, FAKE) == pytest.approx(float(want), rel=1e-5)
    for _ in range(100):
        state = gan.lecam_update(state, REAL + 5, FAKE, 0.9)
    assert state.real / state.weight == pytest.approx(float(np.mean(REAL)) + 5, rel=1e-3)


def test_lecam_only_moves_the_logits():
    def penalty(real):
        return gan.lecam_penalty(gan.lecam_update(gan.lecam_init(), real, FAKE, 0.9), real, FAKE)

    average = np.mean(FAKE)
    want = 2 * np.maximum(np.asarray(REAL) - average, 0) / REAL.size
    np.testing.assert_allclose(jax.grad(penalty)(REAL), want, rtol=1e-5)


def test_accuracy_is_the_share_of_right_answers():
    found = gan.discriminator_metrics(REAL, FAKE)
    assert found["accuracy_real"] == 0.5
    assert found["accuracy_fake"] == pytest.approx(2 / 3)
    assert found["accuracy"] == pytest.approx((0.5 + 2 / 3) / 2)
