"""Random masks to train and measure inpainting with: brush strokes and boxes, as LaMa draws them
(Suvorov et al. 2022, arXiv:2109.07161, and its published settings)."""

import math

import numpy as np
from jaxtyping import UInt8

from ldm_jax import config as cfg
from ldm_jax.data.random_stream import RandomStream

_TRIES = 200
_SEGMENTS = 5
"""Straight segments of a stroke, at most."""


def draw_mask(
    sides: tuple[int, int], how: cfg.Masks, stream: RandomStream
) -> UInt8[np.ndarray, "h w"]:
    """A mask for an image with a height and width of `sides`: 1 in the hole, 0 elsewhere.

    Never empty. Numbers of strokes are uniform over min_count..max_count; LaMa's own code draws up
    to one more than its settings say.

    Raises:
        ValueError: boxes do not fit the image, or no mask in 200 covers as little as it may.
    """
    if stream.chance(how.all_masked):
        return np.ones(sides, np.uint8)
    unit = min(sides) / how.side if how.side is not None else 1.0
    weights = how.strokes.weight, how.boxes.weight
    for _ in range(_TRIES):
        mask = np.zeros(sides, np.uint8)
        if stream.uniform(0, sum(weights)) < weights[0]:
            _draw_strokes(mask, how.strokes, unit, stream)
        else:
            _draw_boxes(mask, how.boxes, unit, stream)
        if how.max_share == 1 or mask.mean() <= how.max_share:
            return mask
    raise ValueError(
        f"none of {_TRIES} masks of {sides[0]} x {sides[1]} pixels covers at most "
        f"{how.max_share:g} of the image; raise Masks.max_share, or make strokes and boxes fewer "
        "or smaller"
    )


def _draw_strokes(
    mask: UInt8[np.ndarray, "h w"], how: cfg.Strokes, unit: float, stream: RandomStream
) -> None:
    height, width = mask.shape
    for number in range(stream.within(how.min_count, how.max_count)):
        x, y = stream.below(width), stream.below(height)
        for _ in range(stream.within(1, _SEGMENTS)):
            # One of four directions, as LaMa has them: 0, 57, 115 and 172 degrees from downwards,
            # and those mirrored for every second stroke.
            angle = 0.01 + stream.below(4)
            length = unit * stream.within(how.min_length, how.max_length)
            # OpenCV, which LaMa draws with, makes lines a pixel wider than it is told.
            broad = max(1.0, unit * (stream.within(how.min_width, how.max_width) + 1))
            turn = -1 if number % 2 == 0 else 1
            end_x = min(max(int(x + turn * length * math.sin(angle)), 0), width)
            end_y = min(max(int(y + length * math.cos(angle)), 0), height)
            draw_segment(mask, (y, x), (end_y, end_x), broad)
            x, y = end_x, end_y


def draw_segment(
    mask: UInt8[np.ndarray, "h w"], start: tuple[int, int], end: tuple[int, int], width: float
) -> None:
    """Sets to 1 what lies within half of `width` of the straight line from `start` to `end` (row
    and column)."""
    reach = width / 2
    first = [max(0, math.ceil(min(a, b) - reach)) for a, b in zip(start, end, strict=True)]
    last = [math.floor(max(a, b) + reach) + 1 for a, b in zip(start, end, strict=True)]
    part = mask[first[0] : last[0], first[1] : last[1]]
    if not part.size:
        return
    y = (np.arange(part.shape[0], dtype=np.float32) + (first[0] - start[0]))[:, None]
    x = np.arange(part.shape[1], dtype=np.float32) + (first[1] - start[1])
    down, right = (np.float32(b - a) for a, b in zip(start, end, strict=True))
    along = np.clip((y * down + x * right) / max(down * down + right * right, 1), 0, 1)
    part[(y - along * down) ** 2 + (x - along * right) ** 2 <= reach * reach] = 1


def _draw_boxes(
    mask: UInt8[np.ndarray, "h w"], how: cfg.Boxes, unit: float, stream: RandomStream
) -> None:
    margin = round(unit * how.margin)
    spaces = [side - 2 * margin for side in mask.shape]
    if unit == 1 and min(spaces) < how.min_side:
        raise ValueError(
            f"an image of {mask.shape[0]} x {mask.shape[1]} pixels has no room for a box of "
            f"{how.min_side} pixels between margins of {how.margin}; set Masks.side to the side "
            "that these lengths are meant for"
        )
    for _ in range(stream.within(how.min_count, how.max_count)):
        sizes = [_side(how, unit, space, stream) for space in spaces]
        top, left = (
            margin + stream.below(space - size + 1)
            for space, size in zip(spaces, sizes, strict=True)
        )
        mask[top : top + sizes[0], left : left + sizes[1]] = 1


def _side(how: cfg.Boxes, unit: float, space: int, stream: RandomStream) -> int:
    drawn = stream.within(how.min_side, max(how.min_side, min(how.max_side, int(space / unit))))
    return min(max(1, round(unit * drawn)), space)
