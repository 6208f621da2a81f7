"""How much pictures that were drawn without a caption are like DigitScenes, as the rater sees."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

from ldm_jax.evaluation.rater import STRAY_INK, Rater, Reading

LAYOUTS = (
    "a red zero alone",
    "a red zero left of a red zero",
    "a red zero above a red zero",
    "a red zero left of a red zero above a red zero",
    "a red zero above a red zero left of a red zero",
)
"""A caption for each arrangement of places that DigitScenes has."""


class Scenes(NamedTuple):
    """What is seen of each picture, under that arrangement that leaves least ink out."""

    digits: Int[np.ndarray, " n"]
    """How many digits the scene has, 1 to 3; 0 where the picture is no scene: a place of it shows
    no digit or no one colour, or more than STRAY_INK of the ink is elsewhere."""
    read: Float[np.ndarray, " n"]
    """Share of the arrangement's places that show a digit in one colour."""
    stray: Float[np.ndarray, " n"]
    """Share of the ink outside the arrangement."""


def read_scenes(rater: Rater, images: UInt8[np.ndarray, "n h w 3"]) -> Scenes:
    """Reads pictures of 16, 32 or 64 pixels that have no caption.

    Of arrangements that leave equally little out, that of the most places read counts, and then
    that of fewest places. Raises ValueError for other sizes.
    """
    found = [rater.read(images, [layout] * len(images)) for layout in LAYOUTS]
    chosen = [_best(readings) for readings in zip(*found, strict=True)]
    return Scenes(
        np.array([len(r.marks) if _valid(r) else 0 for r in chosen], np.int64),
        np.array([_read(r) for r in chosen], np.float64),
        np.array([r.stray for r in chosen], np.float64),
    )


def scene_quality(rater: Rater, images: UInt8[np.ndarray, "n h w 3"]) -> dict[str, float]:
    """Means over pictures: `valid`, the share that are scenes, `places` read, and `stray` ink.

    Raises ValueError where there is no picture.
    """
    if not len(images):
        raise ValueError("the quality of no pictures is undefined; give at least one")
    scenes = read_scenes(rater, images)
    return {
        "valid": float(np.mean(scenes.digits > 0)),
        "places": float(scenes.read.mean()),
        "stray": float(scenes.stray.mean()),
    }


def _best(readings: Sequence[Reading]) -> Reading:
    valid = [reading for reading in readings if _valid(reading)]
    return min(valid or readings, key=lambda r: (round(r.stray, 6), -_read(r), len(r.marks)))


def _read(reading: Reading) -> float:
    seen = [mark.digit is not None and mark.colour is not None for mark in reading.marks]
    return sum(seen) / len(seen)


def _valid(reading: Reading) -> bool:
    return reading.stray <= STRAY_INK and _read(reading) == 1
