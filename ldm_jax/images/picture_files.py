"""Picture files, read as what they are: regular files of known formats, within limits of size."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from ldm_jax.core.reading import FileFormatError, open_file

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Pillow's names of the formats that are opened; others, among them EPS, which runs a program, are
not, whatever a file is called."""
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jp2",
    ".ppm", ".pgm", ".pbm",
)  # fmt: skip
"""What names of pictures end in."""
MAX_PIXELS = 2**28
"""Pixels of one picture, at most: 16384 x 16384."""
LARGE = 2**25
"""Pixels above which a picture is reduced while it is read, where its reader needs it smaller."""
AT_ONCE = 2**26
"""Pixels that the threads of a process decode side by side; a larger picture is decoded alone."""
_BAND = 2**20
"""Pixels that are converted at a time."""

_ON_ITS_SIDE = (5, 6, 7, 8)
"""EXIF orientations of pictures whose height is stored as their width."""

# Pillow warns from its own limit on, and refuses above twice that.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS


class _Room:
    """A number of pixels that threads share: whoever needs more than is left waits."""

    def __init__(self, pixels: int) -> None:
        self._free = self._all = pixels
        self._changed = threading.Condition()

    @contextmanager
    def take(self, pixels: int) -> Iterator[None]:
        """Holds so many pixels, or all where there are fewer."""
        pixels = min(pixels, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= pixels)
            self._free -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._free += pixels
                self._changed.notify_all()


_room = _Room(AT_ONCE)


@contextmanager
def open_picture(
    path: str | Path, formats: tuple[str, ...] = FORMATS, content: bytes | None = None
) -> Iterator[Image.Image]:
    """Opens a picture whose pixels are not decoded yet; decode them inside.

    Args:
        content: of a picture that is no file of its own; `path` is then what errors call it.

    Raises:
        FileFormatError: no regular file, no picture of these formats, a damaged one (also when it
            is decoded inside), or one of more than `MAX_PIXELS`.
    """
    with open_file(path) if content is None else io.BytesIO(content) as file:
        try:
            with Image.open(file, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise FileFormatError(
                        path,
                        f"has {image.width} x {image.height} pixels, more than the {MAX_PIXELS} of "
                        "any picture that is read; make it smaller",
                    )
                yield image
        except (FileFormatError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            known = ", ".join(formats)
            raise FileFormatError(path, f"is no picture that can be read ({known})") from error
        except Image.DecompressionBombError as error:
            raise FileFormatError(
                path, f"has more than the {MAX_PIXELS} pixels of any picture that is read"
            ) from error
        except Exception as error:  # decoders of damaged files raise nearly anything
            raise FileFormatError(path, f"cannot be read as a picture: {error}") from error


def read_picture(path: str | Path, at_least: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """A picture in RGB with 8 bits, upright.

    EXIF orientation is applied, the first frame of an animation is taken, transparency is laid
    over white, 16-bit grey keeps its upper 8 bits. Colour profiles are ignored.

    Args:
        at_least: the shorter side that its reader needs. JPEG files, and pictures of more than
            `LARGE` pixels, are then read at a reduced scale that is still at least that.

    Raises:
        FileFormatError: as `open_picture`, or pixels of 32 bits, whose range no file says.
    """
    return _read(path, at_least, None)


def decode_picture(
    name: str, content: bytes, at_least: int | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """As `read_picture`, of the content of a picture file that errors call `name`."""
    return _read(name, at_least, content)


def _read(
    path: str | Path, at_least: int | None, content: bytes | None
) -> UInt8[np.ndarray, "h w 3"]:
    with open_picture(path, content=content) as image:
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        with _room.take(image.width * image.height):
            ImageOps.exif_transpose(image, in_place=True)
            return _pixels(image, at_least)


def describe_picture(name: str, content: bytes) -> tuple[str, tuple[int, int]]:
    """The format of the content of a picture file, as Pillow calls it, and the picture's height and
    width, upright; its pixels are not decoded.

    Raises:
        FileFormatError: as `open_picture`; errors call it `name`.
    """
    with open_picture(name, content=content) as image:
        return image.format, _sides(image)


def picture_sides(file: str | Path | bytes, name: str = "") -> tuple[int, int]:
    """Height and width of a picture, upright, by its header alone; of its file, or of what that
    holds, which errors call `name`.

    Raises:
        FileFormatError: as `open_picture`.
    """
    given = (name, FORMATS, file) if isinstance(file, bytes) else (file,)
    with open_picture(*given) as image:
        return _sides(image)


def _sides(image: Image.Image) -> tuple[int, int]:
    """Height and width, upright."""
    turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _ON_ITS_SIDE
    return image.size if turned else image.size[::-1]


def _pixels(image: Image.Image, at_least: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """Converted band by band, so that no second picture of its size is in memory on the way."""
    factor = 1
    if at_least is not None and image.width * image.height > LARGE:
        factor = max(1, min(image.size) // at_least)
    width, height = image.size
    rows = max(1, _BAND // (width * factor))
    pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
    for first in range(0, len(pixels), rows):
        last = min((first + rows) * factor, height)
        band = to_rgb(image.crop((0, first * factor, width, last)))
        pixels[first : first + rows] = band.reduce(factor)
    return pixels


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB with 8 bits: transparency over white, 16-bit grey by its upper 8 bits.

    Raises:
        ValueError: pixels of 32 bits, whose range the file does not say.
    """
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} (32 bits) have no known range; use 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
