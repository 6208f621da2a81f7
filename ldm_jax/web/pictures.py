"""Pictures that come with a request, as data: looked at before they are decoded, and kept under
their digest, so that what was drawn from them can be drawn again."""

import base64
import binascii
import contextlib
import hashlib
import io
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from ldm_jax.core.files import write_atomically
from ldm_jax.images.picture_files import to_rgb
from ldm_jax.web.gallery import INPUTS, SENT
from ldm_jax.web.refused import Refused

FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WebP": "image/webp"}
"""What a picture that is sent may be, with its type on the web."""
_PREFIX = re.compile(r"data:[\w.+-]*/?[\w.+-]*(;[\w=.+-]*)*,")
_one_at_a_time = threading.Lock()
"""Decoded pictures are many times as large as what is sent: no two of them are made at once."""


def decode_base64(data: object, field: str) -> bytes:
    """The bytes that a data URL, or plain base64, stands for; raises Refused (422)."""
    if not isinstance(data, str):
        raise Refused(422, (field, f"{field} must be a picture as text in base64"))
    prefix = _PREFIX.match(data[:200])
    try:
        text = data[prefix.end() :] if prefix else data
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(422, (field, f"{field} is not base64: {error}")) from error


def open_sent(data: bytes, field: str, most: int) -> Image.Image:
    """The first frame of a PNG, JPEG or WebP of at most `most` pixels, upright; raises Refused
    (422)."""
    try:
        with _one_at_a_time, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd in it, which is not ours
            image = Image.open(io.BytesIO(data), formats=[*FORMATS])
            if image.width * image.height > most:
                raise Refused(422, (field, f"{field} has {image.width} x {image.height} pixels; "
                                    f"at most {most} are allowed here (max_pixels)"))  # fmt: skip
            image.load()
            return ImageOps.exif_transpose(image)
    except Refused:
        raise
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise Refused(
            422, (field, f"{field} is no picture that can be read ({', '.join(FORMATS)})")
        ) from error


def picture_of(image: Image.Image, field: str) -> UInt8[np.ndarray, "h w 3"]:
    """In RGB with 8 bits, transparency over white; raises Refused (422) for 32 bits."""
    try:
        return np.asarray(to_rgb(image))
    except ValueError as error:
        raise Refused(422, (field, f"{field}: {error}")) from error


def mask_of(image: Image.Image, field: str) -> UInt8[np.ndarray, "h w 3"]:
    """A mask in grey, white where to paint: of a transparent picture, where it is opaque."""
    if image.has_transparency_data:
        alpha = np.asarray(image.convert("RGBA").getchannel("A"))
        if alpha.min() < 255:
            return np.repeat(alpha[..., None], 3, -1)
    return picture_of(image, field)


def png_of_input(pixels: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture as the bytes of a PNG, compressed as usual."""
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return content.getvalue()


def keep_picture(out: Path, image: Image.Image, field: str) -> Path:
    """Writes a picture as `keep` does; returns its path. Raises Refused (422) for 32 bits."""
    return keep(out, png_of_input(picture_of(image, field)))


def keep(out: Path, data: bytes, suffix: str = ".png") -> Path:
    """Writes a file as OUT/inputs/SHA256.SUFFIX, or notes that it was sent again; returns its
    path."""
    path = out / INPUTS / f"{hashlib.sha256(data).hexdigest()}{suffix}"
    try:
        os.utime(path)
    except FileNotFoundError:
        write_atomically(path, data)
    return path


@contextlib.contextmanager
def sent_file(data: bytes, folder: Path) -> Iterator[Path]:
    """What was sent as a file in `folder`, for whoever reads files alone; it is gone afterwards."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=SENT) as file:
        file.write(data)
        file.flush()
        yield Path(file.name)
