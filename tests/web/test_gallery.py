"""Pictures that come and go: what is sent, and what lies in the output folder."""

import base64
import io
import json
import os
import time
import zlib
from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from ldm_jax.config import ConfigError
from ldm_jax.images.picture_text import CHUNK
from ldm_jax.web import pictures
from ldm_jax.web.gallery import GRACE_SECONDS, INPUTS, Gallery, settings_of
from ldm_jax.web.refused import Refused


def sent(image, **how):
    content = io.BytesIO()
    image.save(content, **({"format": "PNG"} | how))
    return content.getvalue()


def bomb():
    """A PNG of 32768 x 32768 white pixels in a few kilobytes."""

    def chunk(kind, data):
        checksum = zlib.crc32(kind + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + kind + data + checksum

    head = (32768).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    data = zlib.compress(bytes(10**6))
    parts = chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_pictures_are_taken_as_data():
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    plain = base64.b64encode(sent(image)).decode()
    for text in (plain, f"data:image/png;base64,{plain}", plain[:20] + "\n" + plain[20:]):
        found = pictures.open_sent(pictures.decode_base64(text, "x"), "x", 16)
        np.testing.assert_array_equal(pictures.picture_of(found, "x"), np.asarray(image))
    for form in ("JPEG", "WEBP"):
        assert pictures.open_sent(sent(image, format=form), "x", 16).size == (4, 4)


@pytest.mark.parametrize(
    "data",
    [b"", b"GIF89a", bomb(), b"\x89PNG\r\n\x1a\n" + bytes(99), b"<svg/>", b"%!PS-Adobe",
     sent(Image.new("RGB", (9, 9)))[:45], sent(Image.new("RGB", (101, 100)))],
    ids=len,
)  # fmt: skip
def test_what_is_no_picture_or_too_large_is_refused(data):
    with pytest.raises(Refused, match="x (is no picture that can be read|has .* pixels)"):
        pictures.open_sent(data, "x", 10_000)


@pytest.mark.parametrize("text", ["?", "data:image/png;base64,!", 3, None, ["a"], "http://a/b.png"])
def test_text_that_is_no_picture_is_refused(text):
    with pytest.raises(Refused):
        pictures.open_sent(pictures.decode_base64(text, "x"), "x", 100)


def test_transparent_masks_paint_where_they_are_opaque():
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    assert pictures.mask_of(clear, "mask")[0, :, 0].tolist() == [0, 255]
    grey = Image.new("L", (2, 1), 255)
    assert pictures.mask_of(grey, "mask")[0, :, 0].tolist() == [255, 255]


@pytest.fixture
def gallery(tmp_path):
    with closing(Gallery(tmp_path)) as gallery:
        yield gallery


def test_pictures_are_numbered_listed_and_deleted(gallery, tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    text = {CHUNK: "{}"}
    names = [gallery.write(pixels, text, grid=i == 1) for i in range(3)]
    assert names == ["000001.png", "000002_grid.png", "000003.png"]
    assert [p.name for p in gallery.page(None, 2)] == names[:0:-1]
    assert [p.name for p in gallery.page(names[2], 9)] == names[1::-1]
    first = gallery.page(None, 1)[0]
    assert (first.width, first.height, first.prompt) == (3, 2, None)
    (tmp_path / "0_foreign.png").write_bytes(b"")
    (tmp_path / "000009.png").write_bytes(b"no picture")
    for other in ("20240101.png", "0000_0001.png", "0000_0000.png"):
        Image.fromarray(pixels).save(tmp_path / other)
    listed = [*names[::-1], "0000_0001.png", "0000_0000.png"]
    assert [p.name for p in gallery.page(None, 9)] == listed
    with pytest.raises(Refused, match="not drawn here"):
        gallery.delete("0000_0001.png")
    gallery.delete(names[0])
    assert names[0] not in gallery.names()
    assert gallery.since(3)[1] == [{"deleted": names[0]}]
    for name in ("../x.png", "0_foreign.png", ".lock", "000001.png", "inputs", ""):
        with pytest.raises(Refused):
            gallery.delete(name)
        with pytest.raises(Refused):
            gallery.input_path(name)
    with pytest.raises(Refused, match="does not say how"):
        settings_of(tmp_path / "0000_0000.png", "it")
    with pytest.raises(ConfigError, match="another server"):
        Gallery(tmp_path)


def test_numbers_go_on_after_a_restart(tmp_path):
    for name in ("000041_grid.png", "20240101.png", "0000_0050.png"):
        (tmp_path / name).touch()
    with closing(Gallery(tmp_path)) as gallery:
        assert gallery.write(np.zeros((2, 2, 3), np.uint8), {}) == "000042.png"


def test_inputs_go_with_the_last_picture_that_was_drawn_from_them(tmp_path):
    pixels = np.zeros((2, 2, 3), np.uint8)
    with closing(Gallery(tmp_path)) as gallery:
        kept = [
            pictures.keep(tmp_path, bytes([i]), ".json" if i == 2 else ".png") for i in range(5)
        ]
        (tmp_path / INPUTS / "my own.png").touch()
        foreign = {CHUNK: '{"request": {"init_image": 3, "mask": "/elsewhere/x.png"}}'}
        gallery.write(pixels, foreign)
        for image, mask in ((0, 1), (0, 2)):
            request = {
                "init_image": str(kept[image]),
                "boxes" if mask == 2 else "mask": str(kept[mask]),
            }
            gallery.write(pixels, {CHUNK: json.dumps({"request": request})})

        def left():
            return [i for i, path in enumerate(kept) if path.exists()]

        gallery.delete("000002.png")
        assert left() == [0, 1, 2, 3, 4], "all of them were sent just now"
        for path in kept:
            os.utime(path, times=2 * (time.time() - GRACE_SECONDS - 1,))
        assert pictures.keep(tmp_path, bytes([4])) == kept[4]  # it is sent again
        gallery.delete("000003.png", lambda: {kept[3].name})
        assert left() == [3, 4], "one is waited for, one was sent just now"
    with closing(Gallery(tmp_path)) as gallery:
        assert left() == [] and [p.name for p in (tmp_path / INPUTS).iterdir()] == ["my own.png"]


def test_only_what_a_killed_server_left_is_cleared_away(tmp_path):
    left = [".000001.png.12.tmp", ".sent.ab12_9xy", f"inputs/.{'0' * 64}.png.3.tmp"]
    others = [".notes.tmp", ".sentence", ".000001.png.tmp", "inputs/.x.tmp"]
    (tmp_path / "inputs").mkdir()
    for name in (*left, *others):
        (tmp_path / name).touch()
    (tmp_path / ".000002.png.1.tmp").mkdir()
    with closing(Gallery(tmp_path)):
        assert not [name for name in left if (tmp_path / name).exists()]
        assert all((tmp_path / name).exists() for name in (*others, ".000002.png.1.tmp"))
