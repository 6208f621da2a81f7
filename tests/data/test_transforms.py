import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data import transforms
from ldm_jax.images.picture_files import to_rgb


def _gradient(height, width):
    rows = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    columns = np.linspace(0, 255, width, dtype=np.uint8)[None, :, None]
    parts = np.broadcast_arrays(rows, columns, np.uint8(7))
    return np.ascontiguousarray(np.concatenate(parts, axis=2))


def fit(image, folder, size, below=None):
    """`image` as a square of `size`."""
    return transforms.choose_crop(image.shape[:2], folder, (size, size), below).image(image)


def test_draws_depend_on_seed_and_position_only():
    first = [transforms.draws(0, p)(1000) for p in range(20)]
    assert first == [transforms.draws(0, p)(1000) for p in range(20)]
    assert first != [transforms.draws(1, p)(1000) for p in range(20)]
    assert len(set(first)) > 15
    below = transforms.draws(-3, 2**40)
    assert {below(3) for _ in range(50)} == {0, 1, 2}


def test_images_keep_their_proportions_or_are_distorted():
    sides = (30, 61)
    assert transforms.resized(sides, (10, 10), "shorter_side") == (10, 20)
    assert transforms.resized(sides, (60, 60), "shorter_side") == (60, 122)
    assert transforms.resized(sides, (10, 10), "exact") == (10, 10)
    assert transforms.resized(sides, (10, 10), "none") == sides
    assert transforms.resized(sides, (20, 32), "shorter_side") == (20, 41)
    assert transforms.resized(sides, (10, 32), "shorter_side") == (16, 32)


@pytest.mark.parametrize(("height", "width"), [(30, 61), (61, 30), (200, 30), (7, 9), (16, 16)])
def test_images_are_resized_as_a_whole_and_then_cropped(height, width):
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    sides = transforms.resized((height, width), (16, 16), "shorter_side")
    kernel = Image.Resampling.LANCZOS if min(height, width) > 16 else Image.Resampling.BICUBIC
    whole = np.asarray(Image.fromarray(image).resize(sides[::-1], kernel))
    top, left = (sides[0] - 16) // 2, (sides[1] - 16) // 2
    fitted = fit(image, cfg.ImageFolder(path="x"), 16)
    np.testing.assert_array_equal(fitted, whole[top : top + 16, left : left + 16])


def test_long_images_are_cropped_and_then_resized(monkeypatch):
    """A line of 8000 pixels, resized to a width of 256, would have a length of two million."""
    line = np.ascontiguousarray(_gradient(8000, 1))
    made = []
    monkeypatch.setattr(
        Image.Image, "resize",
        lambda self, size, *a, _f=Image.Image.resize, **k: made.append(size) or _f(self, size, *a,
                                                                                 **k),
    )  # fmt: skip
    fitted = fit(line, cfg.ImageFolder(path="x"), 256)
    assert fitted.shape == (256, 256, 3) and made == [(256, 256)]
    assert np.abs(fitted[..., 0].astype(int) - 127).max() <= 1  # its middle
    # Where both ways are open they give the same picture.
    image = _gradient(300, 20)
    monkeypatch.setattr(transforms, "_LONG", 2)
    folder = cfg.ImageFolder(path="x", crop="random")
    cropped = fit(image, folder, 10, transforms.draws(0, 3))
    monkeypatch.setattr(transforms, "_LONG", 100)
    whole = fit(image, folder, 10, transforms.draws(0, 3))
    assert np.abs(cropped.astype(int) - whole).max() <= 1


def test_shrinking_averages():
    stripes = np.tile(np.array([0, 255], np.uint8)[None, :, None], (64, 32, 3))
    shrunk = fit(stripes, cfg.ImageFolder(path="x", resize="exact"), 8)
    assert np.abs(shrunk.astype(int) - 127).max() < 20


def test_crops_are_central_or_random_and_small_images_refused():
    image = _gradient(20, 12)
    folder = cfg.ImageFolder(path="x", resize="none", crop="random")
    np.testing.assert_array_equal(fit(image, folder, 10), image[5:15, 1:11])
    corners = {fit(image, folder, 10, transforms.draws(0, p))[0, 0].tobytes() for p in range(400)}
    assert len(corners) == 11 * 3
    with pytest.raises(ValueError, match="20 x 12 pixels"):
        fit(image, folder, 16)


def test_random_crops_may_differ_in_size():
    folder = cfg.ImageFolder(crop="random", smallest_crop=0.5)
    crops = [
        transforms.choose_crop((60, 90), folder, (30, 30), transforms.draws(0, position))
        for position in range(400)
    ]
    shares = np.array([crop.shown[2] - crop.shown[0] for crop in crops])
    assert shares.min() >= 0.5 and shares.max() <= 1
    # Uniform: mean and deviation of shares of the shorter side, within three standard errors.
    assert abs(shares.mean() - 0.75) < 3 * 0.1443 / 20
    assert abs(shares.std() - 0.1443) < 0.01
    assert all(0 <= edge <= 1 for crop in crops for edge in crop.shown)
    widths = np.array([crop.shown[3] - crop.shown[1] for crop in crops])
    np.testing.assert_allclose(widths * 90, shares * 60, rtol=1 / 30)  # whole pixels
    image = _gradient(60, 90)
    assert crops[0].image(image).shape == (30, 30, 3)
    assert transforms.choose_crop((60, 90), folder, (30, 30)).shown[::2] == (0, 1)
    with pytest.raises(cfg.ConfigError, match=r"smallest_crop is 0\.5; .* crop 'random'"):
        cfg.ImageFolder(smallest_crop=0.5)


@pytest.mark.parametrize("resize", ["shorter_side", "exact"])
def test_crops_may_be_taller_or_wider(resize):
    folder = cfg.ImageFolder(path="x", resize=resize, crop="random", flip=True)
    for whole in ((30, 61), (61, 30), (7, 9), (900, 2)):
        for size in ((8, 20), (20, 8)):
            crop = transforms.choose_crop(whole, folder, size, transforms.draws(0, 1))
            assert crop.image(_gradient(*whole)).shape == (*size, 3)
            fits = zip(crop.corner, crop.size, crop.resized, strict=True)
            assert all(0 <= start <= start + side <= end for start, side, end in fits)


def test_flip_mirrors_half_of_the_training_images_only():
    folder, image = cfg.ImageFolder(path="x", flip=True), _gradient(8, 8)
    fitted = [fit(image, folder, 8, transforms.draws(0, p)) for p in range(200)]
    mirrored = sum(np.array_equal(f, image[:, ::-1]) for f in fitted)
    assert 70 < mirrored < 130
    assert mirrored + sum(np.array_equal(f, image) for f in fitted) == 200
    np.testing.assert_array_equal(fit(image, folder, 8), image)


def test_what_is_told_of_a_crop_is_of_the_picture_that_is_seen():
    crop = transforms.Crop((60, 90), (20, 30), (3, 4), (16, 16), mirrored=False)
    assert crop.told((600, 900)).tolist() == [600, 900, 3, 4, 16, 16]
    mirrored = transforms.Crop((60, 90), (20, 30), (3, 4), (16, 16), mirrored=True)
    assert mirrored.told((60, 90)).tolist() == [60, 90, 3, 10, 16, 16]


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
