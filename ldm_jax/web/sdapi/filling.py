"""The colours around a mask, drawn into it: what "fill" puts under a mask before it is painted."""

import numpy as np
from jaxtyping import Bool, Float32, UInt8


def fill(
    image: UInt8[np.ndarray, "h w 3"], masked: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """`image` with smooth colours where it is `masked`, those of what is kept nearby.

    Averages of 2 x 2 pixels, again and again until every one knows a colour, then back up
    (pull-push, Gortler 1996). Where all is masked the image stays as it is.
    """
    if masked.all():
        return image
    known = (~masked).astype(np.float32)[..., None]
    colours = _pull_push(image.astype(np.float32) * known, known)
    return np.where(masked[..., None], np.rint(colours), image).astype(np.uint8)


def _pull_push(
    weighted: Float32[np.ndarray, "h w 3"], known: Float32[np.ndarray, "h w 1"]
) -> Float32[np.ndarray, "h w 3"]:
    """Colours everywhere, of colours times how well they are `known`, from 0 to 1."""
    there = known > 0
    own = np.divide(weighted, known, out=np.zeros_like(weighted), where=there)
    if there.all():
        return own
    height, width = known.shape[:2]
    coarse = _pull_push(_halved(weighted), _halved(known))
    large = coarse.repeat(2, 0).repeat(2, 1)[:height, :width]
    share = np.minimum(known, 1.0)
    return share * own + (1 - share) * large


def _halved(array: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h2 w2 c"]:
    """Averages of 2 x 2 pixels; beyond an odd edge nothing is known."""
    height, width, channels = array.shape
    even = np.zeros((height + height % 2, width + width % 2, channels), np.float32)
    even[:height, :width] = array
    return even.reshape(len(even) // 2, 2, -1, 2, channels).mean((1, 3), dtype=np.float32)
