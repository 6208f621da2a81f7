"""What a model is conditioned on, as pictures for people to look at."""

import colorsys
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageDraw, ImageFont

GREY = 128
PAPER = 24
"""The background behind boxes."""
READABLE = 64
"""Pixels of the shorter side, below which words would only hide boxes."""
GOLDEN = (5**0.5 - 1) / 2
"""Share of the colour circle between one class and the next: no two are ever alike."""

Picture = UInt8[np.ndarray, "h w 3"]


def class_colour(number: int) -> tuple[int, int, int]:
    """The colour of a class, the same in every picture; 0, mostly a background, is near black."""
    if number == 0:
        return (20, 20, 28)
    hue, light = number * GOLDEN % 1, (1.0, 0.75, 0.55)[number % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.65, light)
    return round(255 * red), round(255 * green), round(255 * blue)


def view_of_class_map(class_map: Int[np.ndarray, "h w"]) -> Picture:
    """A colour for each class; grey where there is none."""
    view = np.full((*class_map.shape, 3), GREY, np.uint8)
    for number in np.unique(class_map[class_map >= 0]).tolist():
        view[class_map == number] = class_colour(number)
    return view


def view_of_mask(image: Picture, mask: UInt8[np.ndarray, "h w 1"]) -> Picture:
    """The image with its hole in grey."""
    return np.where(mask > 0, np.uint8(GREY), image)


def view_of_low_res(low_res: UInt8[np.ndarray, "zh zw 3"], factor: int) -> Picture:
    """Enlarged without smoothing."""
    return low_res.repeat(factor, axis=0).repeat(factor, axis=1)


def view_of_depth(depth: Float[np.ndarray, "zh zw"], factor: int) -> Picture:
    """In grey from far to near, enlarged without smoothing."""
    near = (depth - depth.min()) / max(np.ptp(depth), np.finfo(np.float32).tiny)
    grey = np.round(255 * near).astype(np.uint8).repeat(factor, axis=0).repeat(factor, axis=1)
    return np.repeat(grey[..., None], 3, axis=-1)


def view_of_boxes(
    boxes: Float[np.ndarray, "n 4"],
    names: Sequence[str],
    sides: tuple[int, int],
    numbers: Sequence[int],
) -> Picture:
    """Boxes (top, left, bottom, right as shares of the picture) in the colours of their numbers,
    with the names of their classes where the picture has room for words."""
    height, width = sides
    picture = Image.new("RGB", (width, height), (PAPER, PAPER, PAPER))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(max(8, min(sides) // 6))
    for box, name, number in zip(boxes.tolist(), names, numbers, strict=True):
        top, left, bottom, right = box[0] * height, box[1] * width, box[2] * height, box[3] * width
        colour = class_colour(number + 1)
        draw.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), outline=colour)
        if min(sides) >= READABLE:
            draw.text((left + 2, top), name, fill=colour, font=font)
    return np.array(picture)
