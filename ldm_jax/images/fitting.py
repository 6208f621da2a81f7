"""Pictures of other proportions than what is drawn: stretched, cropped, or filled up."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ldm_jax.config.control_choice import HintFit
from ldm_jax.images import masks

Sides = tuple[int, int]
"""Height and width."""


def cropped(image: UInt8[np.ndarray, "h w *c"], sides: Sides) -> UInt8[np.ndarray, "h2 w2 *c"]:
    """The largest part in the middle of `image` with the proportions of `sides`."""
    (height, width), (wanted, across) = image.shape[:2], sides
    if width * wanted > height * across:
        new = height, max(1, round(height * across / wanted))
    else:
        new = max(1, round(width * wanted / across)), width
    top, left = ((old - one) // 2 for old, one in zip((height, width), new, strict=True))
    return image[top : top + new[0], left : left + new[1]]


def inner_sides(image: UInt8[np.ndarray, "h w *c"], sides: Sides) -> Sides:
    """The largest sides within `sides` that have the proportions of `image`."""
    (height, width), (wanted, across) = image.shape[:2], sides
    if width * wanted > height * across:
        return max(1, height * across // width), across
    return wanted, max(1, width * wanted // height)


def _outer_sides(image: UInt8[np.ndarray, "h w *c"], sides: Sides) -> Sides:
    """The smallest sides around `sides` that have the proportions of `image`."""
    (height, width), (wanted, across) = image.shape[:2], sides
    if width * wanted > height * across:
        return wanted, width * wanted // height
    return height * across // width, across


def filled(
    image: UInt8[np.ndarray, "h w *c"], sides: Sides, colour: UInt8[np.ndarray, "*c"] | None = None
) -> UInt8[np.ndarray, "height width *c"]:
    """`image` in the middle of a picture of `sides`, around it the colour, or else that of its own
    edge, as far as it goes."""
    before = [new // 2 - old // 2 for old, new in zip(image.shape[:2], sides, strict=True)]
    after = [new - old - b for old, new, b in zip(image.shape[:2], sides, before, strict=True)]
    if colour is None:
        beside = [*zip(before, after, strict=True), *[(0, 0)] * (image.ndim - 2)]
        return np.pad(image, beside, mode="edge")
    found = np.empty((*sides, *image.shape[2:]), image.dtype)
    found[:] = colour
    found[before[0] : sides[0] - after[0], before[1] : sides[1] - after[1]] = image
    return found


def fitted(
    image: UInt8[np.ndarray, "h w *c"], sides: Sides, fit: HintFit
) -> UInt8[np.ndarray, "height width *c"]:
    """`image` in the size of `sides`, by Lanczos' kernel; filled up with its edge's colours.

    Where it is placed is as in the web UI.
    """
    match fit:
        case "stretch":
            return masks.resize(image, *sides)
        case "crop":
            outer = _outer_sides(image, sides)
            first = [whole // 2 - new // 2 for whole, new in zip(outer, sides, strict=True)]
            # The part that is kept, without making the whole, which may be large.
            top, left, bottom, right = (
                place * old / whole
                for places in (first, np.add(first, sides).tolist())
                for place, old, whole in zip(places, image.shape[:2], outer, strict=True)
            )
            part = Image.fromarray(image).resize(
                sides[::-1], Image.Resampling.LANCZOS, (left, top, right, bottom)
            )
            return np.asarray(part)
        case "fill":
            return filled(masks.resize(image, *inner_sides(image, sides)), sides)
