import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data import transforms
from ldm_jax.images.reading import to_rgb


def _gradient(height, width):
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    columns = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    parts = np.broadcast_arrays(rows, columns, np.uint8(7))
    return np.ascontiguousarray(np.concatenate(parts, axis=2))


def test_draws_depend_on_seed_and_position_only():
    first = [transforms.draws(0, p)(1000) for p in range(20)]
    assert first == [transforms.draws(0, p)(1000) for p in range(20)]
    assert first != [transforms.draws(1, p)(1000) for p in range(20)]
    assert len(set(first)) > 15
    below = transforms.draws(-3, 2**40)
    assert {below(3) for _ in range(50)} == {0, 1, 2}


def test_resize_keeps_proportions_or_distorts():
    image = _gradient(30, 61)
    assert transforms.resize(image, 10, "shorter_side").shape == (10, 20, 3)
    assert transforms.resize(image, 10, "exact").shape == (10, 10, 3)
    assert transforms.resize(image, 60, "shorter_side").shape == (60, 122, 3)
    assert transforms.resize(image, 30, "shorter_side") is image


def test_resize_averages_what_it_shrinks():
    stripes = np.tile(np.array([0, 255], np.uint8)[None, :, None], (64, 32, 3))
    shrunk = transforms.resize(stripes, 8, "exact")
    assert np.abs(shrunk.astype(int) - 127).max() < 20


def test_crop_is_central_or_random_and_refuses_small_images():
    image = _gradient(20, 12)
    np.testing.assert_array_equal(transforms.crop(image, 10), image[5:15, 1:11])
    corners = {
        transforms.crop(image, 10, transforms.draws(0, p))[0, 0].tobytes() for p in range(400)
    }
    assert len(corners) == 11 * 3
    with pytest.raises(ValueError, match="20 x 12 pixels"):
        transforms.crop(image, 16)


def test_flip_mirrors_half_of_the_training_images_only():
    folder, image = cfg.ImageFolder(path="x", flip=True), _gradient(8, 8)
    fitted = [transforms.fit(image, folder, 8, transforms.draws(0, p)) for p in range(200)]
    mirrored = sum(np.array_equal(f, image[:, ::-1]) for f in fitted)
    assert 70 < mirrored < 130
    assert mirrored + sum(np.array_equal(f, image) for f in fitted) == 200
    np.testing.assert_array_equal(transforms.fit(image, folder, 8), image)


def test_to_rgb_lays_transparency_over_white():
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert np.asarray(to_rgb(clear)).min() == 255
    palette = Image.new("P", (2, 2), 0)
    palette.info["transparency"] = 0
    assert np.asarray(to_rgb(palette)).min() == 255


def test_to_rgb_scales_sixteen_bits_and_refuses_unknown_ranges():
    grey = Image.fromarray(np.full((2, 3), 0x80FF, np.uint16))
    rgb = np.asarray(to_rgb(grey))
    assert rgb.shape == (2, 3, 3) and (rgb == 0x80).all()
    with pytest.raises(ValueError, match="'F'"):
        to_rgb(Image.fromarray(np.ones((2, 2), np.float32)))
