"""Pictures are read as what they are, from regular files, within limits."""

import os
import threading
import time

import numpy as np
import pytest
from PIL import Image

from ldm_jax.core.reading import FileFormatError
from ldm_jax.images import picture_files

NOISE = np.random.default_rng(0).integers(0, 256, (40, 24, 4), dtype=np.uint8)


@pytest.mark.parametrize("suffix", picture_files.SUFFIXES)
def test_every_suffix_names_a_format_that_is_opened(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    modes = {".pgm": "L", ".pbm": "1", ".gif": "P"}
    Image.new(modes.get(suffix, "RGB"), (6, 4), 1).save(path)
    assert picture_files.read_picture(path).shape == (4, 6, 3)


def test_formats_that_are_not_meant_are_never_opened(tmp_path, monkeypatch):
    """EPS runs Ghostscript, whatever the file is called."""
    from PIL import EpsImagePlugin

    def ran(*_):
        raise AssertionError("EPS was opened")

    monkeypatch.setattr(EpsImagePlugin.EpsImageFile, "_open", ran)
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(FileFormatError, match="a.png: is no picture that can be read"):
        picture_files.read_picture(path)


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("pipe.png", "folder.png"):
        with pytest.raises(FileFormatError, match=name):
            picture_files.read_picture(tmp_path / name)
    with pytest.raises(FileFormatError, match="not a regular file"):
        picture_files.read_picture("/dev/zero")


def test_the_pictures_of_phones_are_read(tmp_path):
    """Some are JPEG files that hold several pictures."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6), "red").save(path, "MPO", save_all=True,
                                         append_images=[Image.new("RGB", (8, 6))])  # fmt: skip
    assert picture_files.read_picture(path)[0, 0, 0] > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "1", "CMYK", "RGB", "I;16"])
def test_bands_make_the_whole(tmp_path, monkeypatch, mode):
    image = Image.fromarray(NOISE)
    if mode == "I;16":
        image = Image.fromarray(NOISE[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert("RGB" if mode in ("P", "CMYK") else mode).convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    whole = picture_files.read_picture(path)
    monkeypatch.setattr(picture_files, "_BAND", 24 * 7)
    np.testing.assert_array_equal(picture_files.read_picture(path), whole)
    np.testing.assert_array_equal(whole, np.asarray(picture_files.to_rgb(image)))


def test_large_pictures_are_reduced_as_far_as_they_are_needed(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    assert picture_files.read_picture(path, at_least=8).shape == (40, 24, 3)
    monkeypatch.setattr(picture_files, "LARGE", 500)
    monkeypatch.setattr(picture_files, "_BAND", 24 * 7)
    reduced = picture_files.read_picture(path, at_least=8)
    np.testing.assert_array_equal(
        reduced, np.asarray(picture_files.to_rgb(Image.fromarray(NOISE)).reduce(3))
    )
    assert picture_files.read_picture(path, at_least=25).shape == (40, 24, 3)
    assert picture_files.read_picture(path).shape == (40, 24, 3)


def test_too_large_pictures_are_refused_by_their_numbers(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 900)
    with pytest.raises(FileFormatError, match="a.png: has 24 x 40 pixels, more than the 900"):
        picture_files.read_picture(path)


def test_threads_decode_no_more_at_once_than_there_is_room_for():
    room, held, most = picture_files._Room(10), [], []

    def work(pixels):
        with room.take(pixels):
            held.append(min(pixels, 10))
            most.append(sum(held))
            time.sleep(0.002)
            held.remove(min(pixels, 10))

    threads = [threading.Thread(target=work, args=(n,)) for n in (4, 5, 6, 100, 3, 7, 10, 1) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 32 and max(most) <= 10


def test_damaged_pictures_are_named(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(NOISE).save(path)
    content = path.read_bytes()
    for damaged in (content[:30], content[:200], content[:50] + bytes(60) + content[110:], b""):
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match="a.png"):
            picture_files.read_picture(path)


def test_pictures_without_a_file_of_their_own(tmp_path):
    """Their content is read as that of a file, and described without being decoded."""
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    Image.fromarray(NOISE[..., :3]).save(path, exif=exif)
    content = path.read_bytes()
    np.testing.assert_array_equal(
        picture_files.decode_picture("x", content), picture_files.read_picture(path)
    )
    assert picture_files.describe_picture("x", content) == ("JPEG", (24, 40))
    assert picture_files.decode_picture("x", content).shape == (24, 40, 3)
    assert picture_files.describe_picture("x", content[:700]) == ("JPEG", (24, 40))
    with pytest.raises(FileFormatError, match="x: cannot be read as a picture"):
        picture_files.decode_picture("x", content[:700])
    with pytest.raises(FileFormatError, match="x: is no picture that can be read"):
        picture_files.describe_picture("x", b"text")
