"""Resizing, cropping and mirroring of images on the host. Random choices depend on nothing
but the seed and the example's global position in the run."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ldm_jax import config as cfg


def draws(seed: int, position: int) -> Callable[[int], int]:
    """A stateless stream of random choices for one example: `below(n)` is uniform over 0..n-1.

    Keyed by (seed, position) with Philox (Salmon 2011), and made of its raw words only, which
    NumPy fixes for ever, so that the choices are the same in any process, order and version.
    """
    philox = np.random.Philox(key=np.array([seed % 2**64, position % 2**64], dtype=np.uint64))

    def below(n: int) -> int:
        # The bias of the remainder is below n / 2**64.
        return int(philox.random_raw()) % n

    return below


_LONG = 8
"""Pictures more than so many times as long as wide are cropped before they are resized."""


def fit(
    image: UInt8[np.ndarray, "h w 3"],
    folder: cfg.ImageFolder,
    size: int,
    below: Callable[[int], int] | None = None,
) -> UInt8[np.ndarray, "size size 3"]:
    """What a folder's settings make of one image: resized, cropped to `size`, perhaps mirrored.

    Without `below` (of `draws`, in training) the crop is central and nothing is mirrored.

    Raises:
        ValueError: the image is smaller than the crop and is not to be resized.
    """
    sides = resized(image.shape[:2], size, folder.resize)
    corner = _corner(sides, size, below if folder.crop == "random" else None)
    if max(sides) > _LONG * size and sides != image.shape[:2]:
        # Resized as a whole, a line of a pixel's width would be gigabytes.
        scale = [side / target for side, target in zip(image.shape[:2], sides, strict=True)]
        (top, bottom), (left, right) = (
            (start * s, (start + size) * s) for start, s in zip(corner, scale, strict=True)
        )
        image = _resize(image, (size, size), sides, (left, top, right, bottom))
    else:
        top, left = corner
        image = _resize(image, sides, sides)[top : top + size, left : left + size]
    if folder.flip and below is not None and below(2):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def resized(
    sides: tuple[int, int], size: int, mode: Literal["shorter_side", "exact", "none"]
) -> tuple[int, int]:
    """Height and width after resizing: a shorter side of `size` and the other in proportion,
    rounded, or a square, or what they were."""
    if mode == "none":
        return sides
    if mode == "exact":
        return size, size
    # Whole-number arithmetic, so that the shorter side is exactly `size`.
    shorter = min(sides)
    height, width = ((2 * side * size + shorter) // (2 * shorter) for side in sides)
    return height, width


def _resize(
    image: UInt8[np.ndarray, "h w 3"],
    sides: tuple[int, int],
    of_whole: tuple[int, int],
    box: tuple[float, ...] | None = None,
) -> UInt8[np.ndarray, "height width 3"]:
    """The image, or its `box` (left, top, right, bottom), at a height and width of `sides`.

    Antialiased: Lanczos where the whole image shrinks, bicubic where it grows, since Lanczos
    rings.
    """
    height, width = image.shape[:2]
    if box is None and sides == (height, width):
        return image
    shrinks = of_whole[0] * of_whole[1] < height * width
    kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(sides[::-1], kernel, box=box))


def _corner(
    sides: tuple[int, int], size: int, below: Callable[[int], int] | None
) -> tuple[int, int]:
    """Where a square of `size` begins in an image of these sides: in its middle, or at random."""
    spare_y, spare_x = sides[0] - size, sides[1] - size
    if spare_y < 0 or spare_x < 0:
        raise ValueError(
            f"cannot crop {size} x {size} out of {sides[0]} x {sides[1]} pixels; "
            "set data.source.resize to another than 'none'"
        )
    if below is None:
        return spare_y // 2, spare_x // 2
    top = below(spare_y + 1)
    return top, below(spare_x + 1)
