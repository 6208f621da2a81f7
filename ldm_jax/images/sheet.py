"""A sheet of what a model makes of several examples, for people to look at."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from ldm_jax.images.grid import GAP, grid

COLUMNS = 8
SIDE = 128
"""Pixels to which small pictures are enlarged, so that labels have room and people can see them."""


def sheet(
    images: UInt8[np.ndarray, "k n h w 3"], labels: Sequence[str] | None = None
) -> UInt8[np.ndarray, "gh gw 3"]:
    """Of each of n examples its k pictures below one another, and its label under them."""
    scale = max(1, SIDE // images.shape[3])
    large = images.repeat(scale, axis=2).repeat(scale, axis=3)
    gap = np.full((large.shape[1], GAP, *large.shape[3:]), 255, np.uint8)
    columns = [part for one in large for part in (gap, one)][1:]
    return grid(np.concatenate(columns, axis=1), COLUMNS, labels)
