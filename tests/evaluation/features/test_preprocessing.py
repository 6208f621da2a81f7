"""Grey levels become what a network was trained on."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.evaluation.features.preprocessing import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    RESIZES,
    Preprocessing,
)

GREY = {"mean": (128.0,) * 3, "deviation": (128.0,) * 3}
IMAGES = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 12, 17, 3), np.uint8))


@pytest.mark.parametrize("resize", [*RESIZES, "pillow_bicubic_uint8"])
def test_range(resize):
    found = Preprocessing(resize, 9, **GREY)(IMAGES)
    assert found.shape == (2, 9, 9, 3) and found.dtype == jnp.float32
    assert -1 <= found.min() < -0.5 and 0.5 < found.max() <= 255 / 128 - 1


def test_each_channel_has_its_mean():
    grey = jnp.full((1, 4, 4, 3), 128, jnp.uint8)
    found = Preprocessing("torch_bilinear", 4, IMAGENET_MEAN, IMAGENET_DEVIATION)(grey)
    want = (128 / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(found[0, 0, 0], want, rtol=1e-5)


def test_cropping_keeps_the_middle():
    """The shorter side fits; of the longer one both ends are lost, here 5 of 17 columns."""
    found = Preprocessing("torch_bilinear", 12, (0.0,) * 3, (1.0,) * 3, crop=True)(IMAGES)
    np.testing.assert_array_equal(found, IMAGES[:, :, 2:14].astype(jnp.float32))
