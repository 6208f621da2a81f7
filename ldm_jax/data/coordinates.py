"""Where in a picture the codes of what is shown of it are, as tokens (Esser 2021, section 4.2)."""

import numpy as np
from jaxtyping import Int32

from ldm_jax.data.transforms import Crop


def coordinate_tokens(crop: Crop, factor: int, size: int) -> Int32[np.ndarray, "zh zw"]:
    """The token of each code, from 0 at the first pixel of the whole picture up to `size` - 1.

    A pixel's coordinate is its number, row by row, as a share of all pixels; a code's is the mean
    over its `factor` x `factor` pixels, times `size` and rounded. In a mirrored picture, too,
    columns are counted from the left.
    """
    height, width = crop.resized
    top, left = crop.corner
    if crop.mirrored:
        left = width - left - crop.size[1]
    rows, columns = (
        start + factor * np.arange(side // factor) + (factor - 1) / 2
        for start, side in zip((top, left), crop.size, strict=True)
    )
    shares = (rows[:, None] * width + columns[None]) / (height * width)
    # Of very tall pictures the last rows would round up to a token that does not exist.
    return np.minimum(np.rint(size * shares), size - 1).astype(np.int32)


def whole_coordinates(sides: tuple[int, int], factor: int, size: int) -> Int32[np.ndarray, "zh zw"]:
    """Those of a whole picture."""
    return coordinate_tokens(Crop(sides, sides, (0, 0), sides, False), factor, size)
