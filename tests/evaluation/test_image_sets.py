"""Sets of images: every image once, in an order that does not change, or a refusal."""

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.sources import open_source
from ldm_jax.evaluation.image_sets import DataImages, First, Kept, SamplesFile, Spread, open_images


def read(images, rows):
    """All images of some rows, and their numbers."""
    batches = list(images.batches(rows))
    return (
        np.concatenate([batch.rows for batch in batches]),
        np.concatenate([batch.images for batch in batches]),
    )


@pytest.fixture(scope="module")
def many():
    return np.random.default_rng(0).integers(0, 256, (130, 5, 4, 3), np.uint8)


@pytest.fixture(scope="module")
def file(many, tmp_path_factory):
    path = tmp_path_factory.mktemp("samples") / "samples.npz"
    np.savez(path, many, np.repeat(np.arange(13), 10))
    return path


@pytest.fixture(scope="module")
def folder(many, tmp_path_factory):
    path = tmp_path_factory.mktemp("folder")
    for number, image in enumerate(many):
        Image.fromarray(image).save(path / f"{number:03}.png")
    return path


@pytest.mark.parametrize("rows", [range(0, 130), range(64, 128), range(7, 9), range(129, 130)])
def test_any_rows_of_a_file_and_of_a_folder(many, file, folder, rows):
    for path in (file, folder):
        numbers, images = read(open_images(path), rows)
        np.testing.assert_array_equal(numbers, rows)
        np.testing.assert_array_equal(images, many[rows.start : rows.stop])


def test_compressed_files_are_read(many, tmp_path):
    np.savez_compressed(tmp_path / "s.npz", many)
    np.testing.assert_array_equal(
        read(SamplesFile(tmp_path / "s.npz"), range(60, 70))[1], many[60:70]
    )


def test_sorted_labels_are_noticed(many, file, tmp_path):
    assert SamplesFile(file).sorted_by_class
    np.savez(tmp_path / "mixed.npz", many, np.arange(130) % 13)
    assert not SamplesFile(tmp_path / "mixed.npz").sorted_by_class


def test_a_data_set_comes_fitted(pictures):
    data = cfg.Data(source=cfg.ImageFolder(path=str(pictures)), image_size=16)
    source = open_source(data, "train")
    images = DataImages(source, data, "train", 10)
    numbers, found = read(images, range(2, 10))
    assert len(images) == 10 and found.shape == (8, 16, 16, 3)
    np.testing.assert_array_equal(numbers, range(2, 10))
    assert images.about["fingerprint"] == source.fingerprint


def test_images_of_several_sizes_come_apart(tmp_path):
    for number, side in enumerate((4, 4, 6)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{number}.png")
    sizes = [b.images.shape for b in open_images(tmp_path).batches(range(3))]
    assert sizes == [(2, 4, 4, 3), (1, 6, 6, 3)]
    for side in range(7, 16):
        Image.new("RGB", (side, side)).save(tmp_path / f"{side}.png")
    with pytest.raises(FileFormatError, match="more than 8 sizes; crop them"):
        list(open_images(tmp_path).batches(range(12)))


def test_captions_stand_in_the_folder(pictures, file):
    images = open_images(pictures)
    found = images.captions(range(3, 6))
    assert len(found) == 3 and all(caption.startswith("a ") for caption in found)
    assert First(images, 5, "--samples").captions(range(3, 6)) == found
    assert open_images(file).captions(range(3)) is None


def test_lossy_files_are_warned_of(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    assert "use PNG" in open_images(tmp_path).warnings[0]


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"arr_0": np.zeros((2, 4, 4, 3), np.float32)}, "arr_0 of float32"),
        ({"arr_0": np.zeros((2, 3, 4, 4), np.uint8)}, "must be uint8"),
        ({"images": np.zeros((2, 4, 4, 3), np.uint8)}, "no file of samples"),
        ({"arr_0": np.array([{}], object)}, "arr_0 of object|no file of samples"),
    ],
)
def test_other_arrays_are_refused(tmp_path, arrays, problem):
    np.savez(tmp_path / "s.npz", **arrays)
    with pytest.raises(FileFormatError, match=problem):
        SamplesFile(tmp_path / "s.npz")


def test_damaged_files_are_refused(tmp_path, file):
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(FileFormatError, match="no file of samples"):
        SamplesFile(tmp_path / "text.npz")
    (tmp_path / "cut.npz").write_bytes(file.read_bytes()[:3000])
    with pytest.raises(FileFormatError, match="no file of samples"):
        SamplesFile(tmp_path / "cut.npz")


def test_fewer_images_than_are_asked_for_are_refused(file, many):
    assert len(First(open_images(file), 20, "--samples")) == 20
    some = Spread(open_images(file), 20)
    found = np.concatenate([batch.images for batch in some.batches(range(20))])
    np.testing.assert_array_equal(found, many[[i * len(many) // 20 for i in range(20)]])
    with pytest.raises(cfg.ConfigError, match="--samples has 130 images, fewer than the 131"):
        First(open_images(file), 131, "--samples")


def test_what_is_kept_is_a_file_of_samples(many, folder, tmp_path):
    images = Kept(open_images(folder), tmp_path / "kept")
    list(images.batches(range(64, 130)))
    with pytest.raises(FileFormatError, match="has not all images"):
        images.write_npz(tmp_path / "s.npz")
    list(images.batches(range(0, 64)))
    images.write_npz(tmp_path / "s.npz")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["arr_0"], many)
    np.testing.assert_array_equal(read(SamplesFile(tmp_path / "s.npz"), range(130))[1], many)
