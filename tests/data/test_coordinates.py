"""Coordinates of crops, as tokens."""

import numpy as np

from ldm_jax.data.coordinates import coordinate_tokens, whole_coordinates
from ldm_jax.data.transforms import Crop


def test_a_crop_has_the_tokens_of_its_place_in_the_whole():
    whole = whole_coordinates((64, 48), 4, 1024)
    assert whole.shape == (16, 12) and whole.dtype == np.int32
    assert (np.diff(whole, axis=0) > 0).all() and whole.min() >= 0 and whole.max() < 1024
    crop = Crop((128, 96), (64, 48), (8, 16), (32, 24), False)
    np.testing.assert_array_equal(coordinate_tokens(crop, 4, 1024), whole[2:10, 4:10])
    # Mirrored, what was at columns 16 to 39 of 48 is at columns 8 to 31.
    mirrored = Crop((128, 96), (64, 48), (8, 16), (32, 24), True)
    np.testing.assert_array_equal(coordinate_tokens(mirrored, 4, 1024), whole[2:10, 2:8])


def test_there_is_no_token_beyond_the_last():
    assert whole_coordinates((64, 2), 2, 8).max() == 7
