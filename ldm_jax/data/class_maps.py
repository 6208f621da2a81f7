"""Reading class maps: PNG files where each pixel has the number, or the colour, of its class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8
from PIL import ImageColor

from ldm_jax import config as cfg
from ldm_jax.core.reading import FileFormatError
from ldm_jax.data.alike import find_alike
from ldm_jax.images.picture_files import open_picture

NONE = -1
"""What stands for no class."""


def read_class_map(
    path: str | Path, how: cfg.ClassMaps, sides: tuple[int, int] | None = None
) -> Int32[np.ndarray, "h w"]:
    """The class of each pixel, from 0; -1: none.

    A PNG file with a palette (whose colours do not matter) or in grey of 1 to 16 bits holds
    numbers; where `how.palette` names colours, a file of any kind holds these.

    Args:
        sides: height and width that the map must have.

    Raises:
        FileFormatError: no such file, no PNG, colours where numbers are expected, another size, or
            a number or colour that is no class; says which, and where it is first.
    """
    palette = _palette(how)
    with open_picture(path, ("PNG",)) as image:
        if sides is not None and (image.height, image.width) != sides:
            raise FileFormatError(
                path,
                f"has {image.height} x {image.width} pixels (height x width), but its image has "
                f"{sides[0]} x {sides[1]}; a class map must have its image's size",
            )
        if palette is not None:
            return _of_colours(path, np.asarray(image.convert("RGB")), palette)
        if image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
            raise FileFormatError(
                path,
                f"has pixels in {image.mode}, not one number each; save it as PNG in grey or with "
                "a palette, or name the colours of the classes in ClassMaps.palette",
            )
        numbers = np.asarray(image).astype(np.int64)
    return _of_numbers(path, numbers, how)


def _of_numbers(
    path: str | Path, numbers: Int64[np.ndarray, "h w"], how: cfg.ClassMaps
) -> Int32[np.ndarray, "h w"]:
    none = {number for number in (how.ignore, 0 if how.shift < 0 else None) if number is not None}
    classes = np.where(
        np.isin(numbers, list(none)), max(NONE, NONE + how.shift), numbers + how.shift
    )
    unknown = classes >= how.num_classes
    if unknown.any():
        low, high = max(0, -how.shift), how.num_classes - 1 - how.shift
        also = "".join(f", {number} is none" for number in sorted(none))
        _refuse(path, unknown, f"the number {numbers[unknown][0]}",
                f"classes are {low} to {high}{also}; correct the file, or set "
                "ClassMaps.num_classes or ignore")  # fmt: skip
    return classes.astype(np.int32)


def _palette(how: cfg.ClassMaps) -> Int64[np.ndarray, "n 3"] | None:
    try:
        colours = [ImageColor.getrgb(name)[:3] for name in how.palette]
    except ValueError as error:
        raise cfg.ConfigError(f"ClassMaps.palette: {error}; write names or #rrggbb") from error
    return np.array(colours, np.int64) if colours else None


def _of_colours(
    path: str | Path, pixels: UInt8[np.ndarray, "h w 3"], palette: Int64[np.ndarray, "n 3"]
) -> Int32[np.ndarray, "h w"]:
    weights = np.array([1 << 16, 1 << 8, 1])
    known, found = palette @ weights, pixels.astype(np.int64) @ weights
    order = np.argsort(known)
    places = np.minimum(np.searchsorted(known[order], found), len(known) - 1)
    classes = order[places]
    unknown = known[classes] != found
    if unknown.any():
        colour = "#" + bytes(pixels[unknown][0].tolist()).hex()
        _refuse(path, unknown, f"the colour {colour}",
                "no colour of ClassMaps.palette; correct the file, or add the colour")  # fmt: skip
    return classes.astype(np.int32)


def _refuse(path: str | Path, unknown: np.ndarray, what: str, allowed: str) -> None:
    row, column = np.argwhere(unknown)[0].tolist()
    raise FileFormatError(
        path, f"has {what} in row {row}, column {column} (from 0), which is no class: {allowed}"
    )


def find_class_maps(folder: str | Path, names: Sequence[str]) -> dict[str, Path]:
    """The file of each image's class map: `folder` has `a/b.png` for the image `a/b.jpg`.

    Args:
        names: paths of the images, relative to their own folder, with '/'.

    Raises:
        DataError: images without a map, or two images that would have the same.
    """
    return find_alike(folder, names, {".png": "a PNG"}, "class map")
