"""Resizing, cropping and mirroring of images on the host. Random choices depend on nothing
but the seed and the example's global position in the run."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int, Int32, UInt8
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data.resampling import resize_part


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


_ALIKE = 0.02
"""By which proportions of two pictures of one thing may differ: pixels are whole."""
_LONG = 8
"""Pictures more than so many times as long as they shall be are cropped before they are resized."""


@dataclass(frozen=True)
class Crop:
    """How all that lies on one picture is resized, cropped and mirrored, in this order."""

    whole: tuple[int, int]
    """Height and width of the picture as it is, as all of these are."""
    resized: tuple[int, int]
    corner: tuple[int, int]
    """Top and left of what is shown of the resized picture."""
    size: tuple[int, int]
    mirrored: bool

    def image(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "height width 3"]:
        """What is shown of the picture."""
        top, left = self.corner
        height, width = self.size
        if self.whole != self.resized and any(
            side > _LONG * shown for side, shown in zip(self.resized, self.size, strict=True)
        ):
            # Resized as a whole, a line of a pixel's width would be gigabytes.
            y, x = (old / new for old, new in zip(self.whole, self.resized, strict=True))
            box = left * x, top * y, (left + width) * x, (top + height) * y
            image = _resize(image, self.size, self.resized, box)
        else:
            image = _resize(image, self.resized, self.resized)
            image = image[top : top + height, left : left + width]
        return np.ascontiguousarray(image[:, ::-1] if self.mirrored else image)

    @property
    def shown(self) -> tuple[float, float, float, float]:
        """Top, left, bottom, right of what is shown, as shares of the picture as it is."""
        (top, left), (height, width), (h, w) = self.corner, self.size, self.resized
        return top / h, left / w, (top + height) / h, (left + width) / w

    def told(self, original: tuple[int, int]) -> Int32[np.ndarray, " 6"]:
        """What a model may be told of a picture that was read from one of the size `original`: that
        size, top and left of what is shown of the resized picture, and the size that is shown;
        heights and tops first."""
        (top, left), (_, width) = self.corner, self.size
        if self.mirrored:
            left = self.resized[1] - left - width
        return np.array([*original, top, left, *self.size], np.int32)

    def boxes(self, boxes: Float[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 4"]:
        """Boxes (top, left, bottom, right) as shares of what is shown, from such of the picture.
        What is not shown lies below 0 or above 1."""
        top, left, bottom, right = self.shown
        y, x = bottom - top, right - left
        moved = (boxes.astype(np.float64) - (top, left, top, left)) / (y, x, y, x)
        return mirrored_boxes(moved) if self.mirrored else moved

    def class_map(self, class_map: Int[np.ndarray, "h w"]) -> Int[np.ndarray, "height width"]:
        """What is shown of a map of classes, each pixel that of the nearest in the map; this may be
        larger or smaller than the picture, of which it is a map as a whole."""
        rows, columns = (
            ((start + np.arange(shown) + 0.5) * side / resized).astype(np.int64)
            for start, shown, side, resized in zip(
                self.corner, self.size, class_map.shape, self.resized, strict=True
            )
        )
        return class_map[rows[:, None], columns[::-1] if self.mirrored else columns]

    def alike(
        self, image: UInt8[np.ndarray, "h w 3"]
    ) -> UInt8[np.ndarray, "height width 3"] | None:
        """What is shown of a second picture, as of the first; None where the proportions of the two
        differ by more than `_ALIKE`."""
        (h, w), (height, width) = image.shape[:2], self.whole
        if abs(h * width - w * height) > _ALIKE * w * height:
            return None
        return replace(self, whole=(h, w)).image(image)

    def depth_map(
        self, depth: Float32[np.ndarray, "h w"], factor: int
    ) -> Float32[np.ndarray, "zh zw"]:
        """What is shown of a map of depth, which is of the picture as a whole, `factor` times
        smaller than the picture shows it."""
        height, width = (side // factor for side in self.size)
        seen = resize_part(depth[..., None], self.shown, (height, width))[..., 0]
        return np.ascontiguousarray(seen[:, ::-1] if self.mirrored else seen)


def mirrored_boxes(boxes: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
    """Boxes (top, left, bottom, right, as shares) of a picture that is mirrored left to right."""
    top, left, bottom, right = boxes.T
    return np.stack([top, 1 - right, bottom, 1 - left], 1)


def choose_crop(
    whole: tuple[int, int],
    folder: cfg.FittedPictures,
    size: tuple[int, int],
    below: Callable[[int], int] | None = None,
) -> Crop:
    """What a folder's settings make of a picture with the height and width `whole`, to be `size`.

    Without `below` (of `draws`, in training) the crop is central and nothing is mirrored.

    Raises:
        ValueError: the picture is smaller than the crop and is not to be resized.
    """
    sides = resized(whole, size, folder.resize)
    if below is not None and folder.smallest_crop < 1:
        sides = _enlarged(sides, folder.smallest_crop, below)
    corner = _corner(sides, size, below if folder.crop == "random" else None)
    mirrored = folder.flip and below is not None and below(2) == 1
    return Crop(whole, sides, corner, size, mirrored)


def resized(
    sides: tuple[int, int],
    size: tuple[int, int],
    mode: Literal["shorter_side", "exact", "none"],
) -> tuple[int, int]:
    """Height and width after resizing: the least that cover `size`, in proportion and rounded; or
    `size` itself; or what they were."""
    if mode == "none":
        return sides
    if mode == "exact":
        return size
    (h, w), (height, width) = sides, size
    # Whole-number arithmetic, so that the side that just covers does so exactly.
    if height * w >= width * h:
        return height, (2 * w * height + h) // (2 * h)
    return (2 * h * width + w) // (2 * w), width


def _enlarged(
    sides: tuple[int, int], smallest: float, below: Callable[[int], int]
) -> tuple[int, int]:
    """So much larger that a crop shows a share of them that is uniform in [smallest, 1]."""
    share = 1 - (1 - smallest) * below(1 << 20) / (1 << 20)
    return round(sides[0] / share), round(sides[1] / share)


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
    sides: tuple[int, int], size: tuple[int, int], below: Callable[[int], int] | None
) -> tuple[int, int]:
    """Where a crop of `size` begins in an image of these sides: in its middle, or at random."""
    spare_y, spare_x = sides[0] - size[0], sides[1] - size[1]
    if spare_y < 0 or spare_x < 0:
        raise ValueError(
            f"cannot crop {size[0]} x {size[1]} out of {sides[0]} x {sides[1]} pixels; "
            "set data.source.resize to another than 'none'"
        )
    if below is None:
        return spare_y // 2, spare_x // 2
    top = below(spare_y + 1)
    return top, below(spare_x + 1)
