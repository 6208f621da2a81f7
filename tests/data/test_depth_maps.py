"""Depth maps: their files, what is refused, and their way through resizing and cropping."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.depth_maps import find_depth_maps, read_depth_map
from ldm_jax.data.resampling import resize
from ldm_jax.data.sources import DataError
from ldm_jax.data.transforms import Crop

DEPTH = np.arange(12).reshape(3, 4)


def saved(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_of_8_and_16_bits_keeps_its_numbers(tmp_path, dtype):
    depth = (DEPTH * (20 if dtype == np.uint8 else 5000)).astype(dtype)
    found = read_depth_map(saved(tmp_path / "depth.png", depth))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, depth)


def test_grey_written_as_colours_is_grey(tmp_path):
    depth = (DEPTH * 20).astype(np.uint8)
    found = read_depth_map(saved(tmp_path / "depth.png", np.stack([depth] * 3, axis=-1)))
    np.testing.assert_array_equal(found, depth)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32])
def test_numbers_of_any_kind(tmp_path, dtype):
    np.save(tmp_path / "depth.npy", DEPTH.astype(dtype))
    np.testing.assert_array_equal(read_depth_map(tmp_path / "depth.npy"), DEPTH)


def colours():
    image = np.full((3, 4, 3), 9, np.uint8)
    image[1, 2, 0] = 10
    return image


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.full((3, 4), 7, np.uint8), "the same depth everywhere, 7, so it says nothing"),
        (colours(), "a colour in row 1, column 2 .from 0., where a depth map is grey"),
        (np.zeros((3, 4, 4), np.uint8), "pixels of the kind RGBA, not one number each"),
    ],
)
def test_pictures_that_are_no_depth_maps(tmp_path, array, complaint):
    with pytest.raises(FileFormatError, match=complaint):
        read_depth_map(saved(tmp_path / "depth.png", array))


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.ones((3, 4)), "the same depth everywhere, 1,"),
        (np.zeros((1, 3, 4)), r"shape \(1, 3, 4\); it must be \(height, width\)"),
        (np.zeros((0, 4)), "of 1 to"),
        (np.array([[1.0, np.nan]]), "not finite"),
        (np.array([[1.0, 1e300]]), "not finite numbers of 32 bits"),
        (np.array([["a"]]), "it must hold numbers"),
        (np.array([[None]]), "it must hold numbers"),
    ],
)
def test_arrays_that_are_no_depth_maps(tmp_path, array, complaint):
    np.save(tmp_path / "depth.npy", array)
    with pytest.raises(FileFormatError, match=complaint):
        read_depth_map(tmp_path / "depth.npy")


def test_files_that_are_none(tmp_path):
    np.save(tmp_path / "depth.npy", DEPTH)
    whole = (tmp_path / "depth.npy").read_bytes()
    (tmp_path / "depth.npy").write_bytes(whole[:-1])
    with pytest.raises(FileFormatError, match="cut off"):
        read_depth_map(tmp_path / "depth.npy")
    saved(tmp_path / "depth.jpg", np.zeros((3, 4), np.uint8))
    with pytest.raises(FileFormatError, match="no picture that can be read .PNG."):
        read_depth_map(tmp_path / "depth.jpg")
    with pytest.raises(FileFormatError):
        read_depth_map(tmp_path / "absent.png")


def test_maps_are_found_in_either_form(tmp_path):
    saved(tmp_path / "a.png", DEPTH.astype(np.uint8))
    np.save(tmp_path / "b.npy", DEPTH)
    found = find_depth_maps(tmp_path, ["a.jpg", "b.jpg"])
    assert found == {"a.jpg": tmp_path / "a.png", "b.jpg": tmp_path / "b.npy"}
    with pytest.raises(DataError, match=r"no depth map .* c.jpg; add a PNG or a .npy file"):
        find_depth_maps(tmp_path, ["a.jpg", "c.jpg"])


def test_a_crop_of_a_plane_is_that_part_of_the_plane():
    """Cubic convolution keeps planes, but near the border, where pixels are repeated."""
    y, x = np.mgrid[:40, :60] + 0.5
    plane = (3 * y + x).astype(np.float32)
    # The picture is half as large as the map; 8 x 16 pixels of it are seen, at half their size.
    crop = Crop((20, 30), (20, 30), (4, 6), (8, 16), mirrored=False)
    rows, columns = np.mgrid[:4, :8] * 4 + np.array([8 + 2, 12 + 2])[:, None, None]
    np.testing.assert_allclose(crop.depth_map(plane, 2), 3 * rows + columns, atol=1e-3)
    mirrored = Crop((20, 30), (20, 30), (4, 6), (8, 16), mirrored=True)
    np.testing.assert_array_equal(mirrored.depth_map(plane, 2), crop.depth_map(plane, 2)[:, ::-1])
    whole = Crop((20, 30), (20, 30), (0, 0), (20, 30), mirrored=False)
    expected = resize(plane[..., None], (10, 15), "cubic")[..., 0]
    np.testing.assert_allclose(whole.depth_map(plane, 2), expected, atol=1e-4)
