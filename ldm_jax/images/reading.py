"""Picture files, read as what they are: regular files of known formats, within limits of size."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

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


@contextmanager
def open_picture(path: str | Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """Opens a picture whose pixels are not decoded yet; decode them inside.

    Raises:
        FileFormatError: no regular file, no picture of these formats, a damaged one (also when it
            is decoded inside), or one of more than `MAX_PIXELS`.
    """
    with open_file(path) as file:
        try:
            with Image.open(file, formats=formats) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise FileFormatError(
                        path,
                        f"has {image.width} x {image.height} pixels, more than the {MAX_PIXELS} of "
                        "any picture that is read; make it smaller",
                    )
                yield image
        except FileFormatError:
            raise
        except UnidentifiedImageError as error:
            known = ", ".join(formats)
            raise FileFormatError(path, f"is no picture that can be read ({known})") from error
        except Image.DecompressionBombError as error:
            raise FileFormatError(path, f"is a picture too large to be read: {error}") from error
        except (OSError, ValueError, SyntaxError) as error:
            raise FileFormatError(path, f"cannot be read as a picture: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """The image upright and in RGB with 8 bits.

    EXIF orientation is applied, the first frame of an animation is taken, transparency is laid
    over white, 16-bit grey keeps its upper 8 bits. Colour profiles are ignored.

    Raises:
        ValueError: pixels of 32 bits, whose range the file does not say.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode!r} (32 bits) have no known range; use 8 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
