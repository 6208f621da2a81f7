"""Decoding, resizing, cropping and mirroring of images on the host. Random choices depend on
nothing but the seed and the example's global position in the run."""

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


def resize(
    image: UInt8[np.ndarray, "h w 3"], size: int, mode: Literal["shorter_side", "exact"]
) -> UInt8[np.ndarray, "height width 3"]:
    """Resizes to a shorter side of `size` (the other in proportion, rounded) or to a square.

    Antialiased: Lanczos where the image shrinks, bicubic where it grows, since Lanczos rings.
    """
    height, width = image.shape[:2]
    if mode == "exact":
        target = (size, size)
    else:
        # Whole-number arithmetic, so that the shorter side is exactly `size`.
        shorter = min(height, width)
        target = tuple((2 * side * size + shorter) // (2 * shorter) for side in (height, width))
    if target == (height, width):
        return image
    shrinks = target[0] * target[1] < height * width
    kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize(target[::-1], kernel))


def crop(
    image: UInt8[np.ndarray, "h w 3"], size: int, below: Callable[[int], int] | None = None
) -> UInt8[np.ndarray, "size size 3"]:
    """The central square of `size` pixels, or with `below` (of `draws`) a random one.

    Raises:
        ValueError: the image is smaller than the crop.
    """
    spare_y, spare_x = image.shape[0] - size, image.shape[1] - size
    if spare_y < 0 or spare_x < 0:
        raise ValueError(
            f"cannot crop {size} x {size} out of {image.shape[0]} x {image.shape[1]} pixels; "
            "set data.source.resize to another than 'none'"
        )
    if below is None:
        top, left = spare_y // 2, spare_x // 2
    else:
        top, left = below(spare_y + 1), below(spare_x + 1)
    return image[top : top + size, left : left + size]


def fit(
    image: UInt8[np.ndarray, "h w 3"],
    folder: cfg.ImageFolder,
    size: int,
    below: Callable[[int], int] | None = None,
) -> UInt8[np.ndarray, "size size 3"]:
    """What a folder's settings make of one image: resized, cropped to `size`, perhaps mirrored.

    Without `below` (validation) the crop is central and nothing is mirrored.
    """
    if folder.resize != "none":
        image = resize(image, size, folder.resize)
    image = crop(image, size, below if folder.crop == "random" else None)
    if folder.flip and below is not None and below(2):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)
