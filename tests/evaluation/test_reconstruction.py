"""Reconstructions of a trained autoencoder, and their PSNR."""

import numpy as np
import pytest

from ldm_jax.data import digit_scenes
from ldm_jax.evaluation.reconstruction import psnr, reconstruct


def test_psnr_is_that_of_its_definition():
    black = np.zeros((3, 4, 4, 3), np.uint8)
    others = black.copy()
    others[1] = 255
    others[2] = 16
    found = psnr(black, others)
    np.testing.assert_allclose(found[1:], [0, 10 * np.log10(255**2 / 16**2)], atol=1e-9)
    assert np.isfinite(found[0]) and found[0] > 100
    np.testing.assert_allclose(psnr(others, black), found)


def test_reconstructions_do_not_depend_on_the_batch(trained_autoencoder):
    images, _ = digit_scenes.pictures("test", 7, 16)
    whole = reconstruct(trained_autoencoder, images, batch_size=4)
    assert whole.shape == images.shape and whole.dtype == np.uint8
    np.testing.assert_array_equal(
        reconstruct(trained_autoencoder, images[4:6], batch_size=4), whole[4:6]
    )


def test_a_folder_without_an_autoencoder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a work directory"):
        reconstruct(tmp_path, np.zeros((1, 16, 16, 3), np.uint8))
