"""Pictures of other proportions than what is drawn."""

import numpy as np
import pytest

from ldm_jax.images.fitting import cropped, filled, fitted, inner_sides

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("old", [(8, 24), (24, 8), (16, 16), (1, 5000), (7, 5)])
@pytest.mark.parametrize("new", [(16, 16), (24, 8), (5, 9)])
def test_sizes(old, new):
    image = RANDOM.integers(0, 256, (*old, 3), dtype=np.uint8)
    for fit in ("stretch", "crop", "fill"):
        assert fitted(image, new, fit).shape == (*new, 3)
    inner = inner_sides(image, new)
    assert all(0 < one <= most for one, most in zip(inner, new, strict=True)) and (
        inner[0] == new[0] or inner[1] == new[1]
    )


def test_what_is_kept_is_in_the_middle():
    image = RANDOM.integers(0, 256, (8, 24, 3), dtype=np.uint8)
    np.testing.assert_array_equal(fitted(image, (8, 8), "crop"), image[:, 8:16])
    np.testing.assert_array_equal(cropped(image, (2, 2)), image[:, 8:16])
    tall = fitted(image, (24, 24), "fill")
    np.testing.assert_array_equal(tall[8:16], image)
    assert np.all(tall[:8] == image[0]) and np.all(tall[16:] == image[-1])
    around = filled(image, (10, 24), np.array([1, 2, 3], np.uint8))
    assert np.all(around[[0, -1]] == [1, 2, 3])
