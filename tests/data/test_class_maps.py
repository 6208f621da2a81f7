import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.class_maps import find_class_maps, read_class_map
from ldm_jax.data.sources import DataError

NUMBERS = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)


def _saved(path, pixels, mode=None):
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([255 - i // 3 for i in range(768)])
    image.save(path)
    return path


@pytest.mark.parametrize("kind", ["L", "P", "16 bits"])
def test_numbers_with_and_without_a_shift(tmp_path, kind):
    pixels = NUMBERS.astype(np.uint16) if kind == "16 bits" else NUMBERS
    path = _saved(tmp_path / "map.png", pixels, kind)
    classes = read_class_map(path, cfg.ClassMaps(3), (2, 3))
    assert classes.dtype == np.int32 and classes.tolist() == [[0, 1, 2], [2, -1, 1]]
    # COCO-Stuff as taming-transformers counts it, and ADE20K without its class of the rest.
    assert read_class_map(path, cfg.ClassMaps(4, shift=1)).tolist() == [[1, 2, 3], [3, 0, 2]]
    assert read_class_map(path, cfg.ClassMaps(2, shift=-1)).tolist() == [[-1, 0, 1], [1, -1, 0]]


def test_numbers_above_255(tmp_path):
    path = _saved(tmp_path / "map.png", np.array([[255, 999]], np.uint16))
    assert read_class_map(path, cfg.ClassMaps(1000, ignore=None)).tolist() == [[255, 999]]
    with pytest.raises(cfg.ConfigError, match="ignore is 255; it must be None, 0, or no number"):
        cfg.ClassMaps(1000)


def test_colours_of_a_palette(tmp_path):
    pixels = np.array([[[255, 0, 0], [0, 128, 0]], [[18, 52, 86], [255, 0, 0]]], np.uint8)
    how = cfg.ClassMaps(3, palette=("green", "#ff0000", "#123456"))
    path = _saved(tmp_path / "map.png", pixels)
    assert read_class_map(path, how).tolist() == [[1, 0], [2, 1]]
    pixels[1, 0] = 7
    with pytest.raises(FileFormatError, match="colour #070707 in row 1, column 0"):
        read_class_map(_saved(path, pixels), how)
    with pytest.raises(FileFormatError, match="pixels in RGB.*ClassMaps.palette"):
        read_class_map(path, cfg.ClassMaps())
    with pytest.raises(cfg.ConfigError, match="'nocolour'"):
        read_class_map(path, cfg.ClassMaps(1, palette=("nocolour",)))


def test_what_is_wrong_with_a_file_is_said(tmp_path):
    path = _saved(tmp_path / "map.png", NUMBERS)
    with pytest.raises(FileFormatError, match=r"the number 2 in row 0, column 2 .* 0 to 1, 255 is"):
        read_class_map(path, cfg.ClassMaps(2))
    with pytest.raises(FileFormatError, match="255 in row 1, column 1 .* classes are 0 to 2;"):
        read_class_map(path, cfg.ClassMaps(3, ignore=None))
    with pytest.raises(FileFormatError, match="has 2 x 3 pixels .* its image has 3 x 2"):
        read_class_map(path, cfg.ClassMaps(3), (3, 2))
    Image.fromarray(NUMBERS).save(tmp_path / "map.jpg")
    with pytest.raises(FileFormatError, match="no picture that can be read .PNG"):
        read_class_map(tmp_path / "map.jpg", cfg.ClassMaps())


def test_maps_beside_images_have_their_names(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/one.png", "two.png"):
        _saved(tmp_path / name, NUMBERS)
    found = find_class_maps(tmp_path, ["a/one.jpg", "two.webp"])
    assert found == {"a/one.jpg": tmp_path / "a/one.png", "two.webp": tmp_path / "two.png"}
    with pytest.raises(DataError, match="1 of 2 images have no class map .* b.jpg"):
        find_class_maps(tmp_path, ["two.jpg", "b.jpg"])
    with pytest.raises(DataError, match="of two images, two.jpg and two.png"):
        find_class_maps(tmp_path, ["two.jpg", "two.png"])
