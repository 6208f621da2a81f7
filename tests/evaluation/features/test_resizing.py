"""Resizes of constants and of pictures that keep their size. `tests/parity` has all values."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.evaluation.features import resizing

FLOATS = [resizing.tensorflow_bilinear, resizing.torch_bilinear, resizing.pillow_bicubic]


@pytest.mark.parametrize("resize", FLOATS)
@pytest.mark.parametrize("sides", [(5, 3), (31, 40), (9, 7)])
def test_constants_stay(resize, sides):
    images = jnp.full((2, 9, 7, 3), 200.0)
    np.testing.assert_allclose(resize(images, sides), np.full((2, *sides, 3), 200), rtol=1e-6)


@pytest.mark.parametrize("resize", FLOATS)
def test_the_same_sides_change_nothing(resize):
    images = np.random.default_rng(0).uniform(0, 255, (1, 8, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(resize(jnp.asarray(images), (8, 6)), images)


def test_bytes():
    images = np.random.default_rng(0).integers(0, 256, (1, 8, 6, 3), np.uint8)
    np.testing.assert_array_equal(
        resizing.pillow_bicubic_rounded(jnp.asarray(images), (8, 6)), images
    )
    white = jnp.full((1, 8, 6, 3), 255, jnp.uint8)
    np.testing.assert_array_equal(resizing.pillow_bicubic_rounded(white, (3, 20)), 255)


def test_where_pixels_are_taken_from():
    """TensorFlow 1 keeps the first pixel, PyTorch shifts by half of one; twice the sides."""
    ramp = jnp.asarray(np.arange(4, dtype=np.float32).reshape(1, 1, 4, 1))
    tensorflow = resizing.tensorflow_bilinear(ramp, (1, 8)).reshape(-1)
    np.testing.assert_allclose(tensorflow, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3])
    shifted = resizing.torch_bilinear(ramp, (1, 8)).reshape(-1)
    np.testing.assert_allclose(shifted, [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3])


def test_overshoot_is_clipped():
    edge = jnp.asarray(np.repeat([0.0, 255.0], 4).astype(np.float32).reshape(1, 1, 8, 1))
    found = np.asarray(resizing.pillow_bicubic(edge, (1, 31)))
    assert found.min() == 0 and found.max() == 255
