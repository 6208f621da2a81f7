"""Labelled grids and PNG files with text."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.images import grid

IMAGES = np.stack([np.full((16, 16, 3), value, np.uint8) for value in (0, 60, 120)])


def test_grid_places_images_in_rows_and_enlarges_them():
    picture = grid.grid(IMAGES, columns=2, scale=2)
    assert picture.shape == (2 * 34 + 2, 2 * 34 + 2, 3)
    assert (picture[2:34, 36:68] == 60).all()
    assert (picture[36:68, 2:34] == 120).all()
    assert (picture[36:, 36:] == 255).all()


def test_a_see_through_grid_has_nothing_beside_its_images():
    images = np.arange(3 * 4 * 5 * 3, dtype=np.uint8).reshape(3, 4, 5, 3)
    picture = grid.see_through_grid(images, columns=2)
    expected = np.zeros((10, 12, 4), np.uint8)
    for i, (y, x) in enumerate([(0, 0), (0, 7), (6, 0)]):
        expected[y : y + 4, x : x + 5, :3] = images[i]
        expected[y : y + 4, x : x + 5, 3] = 255
    np.testing.assert_array_equal(picture, expected)


def test_labels_are_wrapped_below_their_image():
    short = grid.grid(IMAGES, 3, ["a", "b", "c"], scale=4)
    long = grid.grid(IMAGES, 3, ["a red three above a blue seven", "b", "c"], scale=4)
    assert long.shape[0] > short.shape[0] > grid.grid(IMAGES, 3, scale=4).shape[0]
    assert (long[66:, 2:66] < 200).any()
    assert (long[:2] == 255).all() and (long[66:, 66:68] == 255).all()  # nothing spills over


def test_what_makes_no_grid_is_refused():
    with pytest.raises(ValueError, match="2 labels for 3 images"):
        grid.grid(IMAGES, 3, ["a", "b"])
    with pytest.raises(ValueError, match="0 images"):
        grid.grid(IMAGES[:0], 3)


def test_png_keeps_pixels_and_text(tmp_path):
    path = tmp_path / "a.png"
    grid.save_png(path, IMAGES[1], {"prompt": "a naïve 3", "seed": "7"})
    with Image.open(path) as image:
        assert image.text == {"prompt": "a naïve 3", "seed": "7"}
        np.testing.assert_array_equal(np.asarray(image), IMAGES[1])
    assert list(tmp_path.iterdir()) == [path]
