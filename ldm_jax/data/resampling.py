"""Resizing and blurring of images in floating point, as sums of neighbours along each axis.

Each axis is a `Taps`: for every new pixel the old ones that it is made of, and their weights.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int
from scipy import fft, sparse

from ldm_jax.core.cubic import cubic

Kernel = Literal["linear", "cubic", "area", "lanczos"]


class Taps(NamedTuple):
    """What the pixels of one axis are made of."""

    of: Int[np.ndarray, "n taps"]
    """Old pixels, all of which exist."""
    weights: Float[np.ndarray, "n taps"]


def apply(
    image: Float32[np.ndarray, "h w c"], rows: Taps, columns: Taps
) -> Float32[np.ndarray, "height width c"]:
    """The image with both axes made of its pixels."""
    return _along(_along(image, rows).transpose(1, 0, 2), columns).transpose(1, 0, 2)


def _along(image: Float32[np.ndarray, "h w c"], taps: Taps) -> Float32[np.ndarray, "n w c"]:
    (n, count), (h, w, channels) = taps.of.shape, image.shape
    ends = np.arange(0, n * count + 1, count)
    matrix = sparse.csr_array(
        (taps.weights.ravel().astype(np.float32), taps.of.ravel(), ends), shape=(n, h)
    )
    return (matrix @ image.reshape(h, w * channels)).reshape(n, w, channels)


def reflected(indices: Int[np.ndarray, "..."], n: int, edge_twice: bool) -> Int[np.ndarray, "..."]:
    """Any whole numbers as pixels 0..n-1 of an axis that is mirrored at its ends, as often as is
    needed: about the middle of the last pixel, or `edge_twice`: about its border."""
    if n == 1:
        return np.zeros_like(indices)
    period = 2 * n if edge_twice else 2 * n - 2
    inside = indices % period
    return np.minimum(inside, period - inside - (1 if edge_twice else 0))


# ------------------------------------------------------------------------------------ resizing


def resize(
    image: Float32[np.ndarray, "h w c"], sides: tuple[int, int], kernel: Kernel
) -> Float32[np.ndarray, "height width c"]:
    """The image at a height and width of `sides`, by OpenCV's definitions: `linear`, `cubic` (a
    = -0.75) and `lanczos` (of 8 pixels) without antialiasing and with repeated edges, `area` as
    the mean of what each new pixel covers, which where the image grows is a linear one of its own
    kind."""
    old = image.shape[:2]
    if old == sides:
        return image
    if kernel == "area":
        shrinks = all(new <= side for new, side in zip(sides, old, strict=True))
        taps: Callable[[int, int], Taps] = _covered if shrinks else _area_grown
    else:
        taps = {"linear": _linear, "cubic": _cubic, "lanczos": _lanczos}[kernel]
    rows, columns = (taps(side, new) for side, new in zip(old, sides, strict=True))
    return apply(image, rows, columns)


def resize_part(
    image: Float32[np.ndarray, "h w c"],
    part: tuple[float, float, float, float],
    sides: tuple[int, int],
) -> Float32[np.ndarray, "height width c"]:
    """The `part` of an image between top, left, bottom and right, shares of its sides, at a height
    and width of `sides`, as `resize` does it by `cubic`."""
    top, left, bottom, right = part
    rows, columns = (
        _cubic(old, new, begin * old, (end - begin) * old)
        for old, new, begin, end in zip(
            image.shape[:2], sides, (top, left), (bottom, right), strict=True
        )
    )
    return apply(image, rows, columns)


def _linear(old: int, new: int) -> Taps:
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    return _between(np.floor(at).astype(np.int64), at - np.floor(at), old)


def _area_grown(old: int, new: int) -> Taps:
    # Borders that meet, meet: OpenCV's rounding errors may there take the pixel before.
    left = np.floor(np.arange(new) * (old / new) + 1e-9).astype(np.int64)
    # The share of a new pixel that lies beyond the border between two old ones.
    share = np.arange(1, new + 1) - (left + 1) * (new / old)
    share = np.where(share <= 0, 0.0, share - np.floor(share))
    return _between(left, np.where(left >= old - 1, 0.0, share), old)


def _between(left: Int[np.ndarray, " n"], share: Float[np.ndarray, " n"], old: int) -> Taps:
    of = np.stack([left, np.minimum(left + 1, old - 1)], 1)
    return Taps(of, np.stack([1 - share, share], 1))


def _cubic(old: int, new: int, begin: float = 0.0, length: float | None = None) -> Taps:
    at = begin + (np.arange(new) + 0.5) * ((old if length is None else length) / new) - 0.5
    of = np.floor(at).astype(np.int64)[:, None] + np.arange(-1, 3)
    return Taps(np.clip(of, 0, old - 1), cubic(at[:, None] - of, -0.75))


def _lanczos(old: int, new: int) -> Taps:
    at = (np.arange(new) + 0.5) * (old / new) - 0.5
    of = np.floor(at).astype(np.int64)[:, None] + np.arange(-3, 5)
    weights = np.sinc(at[:, None] - of) * np.sinc((at[:, None] - of) / 4)
    return Taps(np.clip(of, 0, old - 1), weights / weights.sum(1, keepdims=True))


def _covered(old: int, new: int) -> Taps:
    ratio = old / new
    starts, ends = np.arange(new) * ratio, np.arange(1, new + 1) * ratio
    of = np.floor(starts + 1e-9).astype(np.int64)[:, None] + np.arange(int(np.ceil(ratio)) + 1)
    weights = np.clip(np.minimum(ends[:, None], of + 1) - np.maximum(starts[:, None], of), 0, None)
    weights[weights < 1e-6] = 0.0  # what is left of borders that meet
    return Taps(np.minimum(of, old - 1), weights / weights.sum(1, keepdims=True))


def halve_evenly(image: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "height width c"]:
    """The image at half its sides, rounded up, as MATLAB's `imresize` does it: cubic (a = -0.5),
    antialiased, with edges mirrored about their border."""
    return apply(image, *(_halved(side) for side in image.shape[:2]))


def _halved(old: int) -> Taps:
    at = 2 * np.arange(-(-old // 2)) + 0.5
    of = at.astype(np.int64)[:, None] + np.arange(-4, 6)
    weights = cubic((at[:, None] - of) / 2, -0.5)
    return Taps(reflected(of, old, edge_twice=True), weights / weights.sum(1, keepdims=True))


# ------------------------------------------------------------------------------------ blurring


def blurred(weights: Float[np.ndarray, " taps"], n: int, step: int = 1) -> Taps:
    """Every `step`-th pixel of an axis of `n`, convolved with `weights`, whose centre is taps // 2;
    the axis is mirrored about the middle of its last pixels."""
    of = np.arange(0, n, step)[:, None] - np.arange(len(weights)) + len(weights) // 2
    every = np.broadcast_to(weights, of.shape)
    return Taps(reflected(of, n, edge_twice=False), every)


def convolve(
    image: Float32[np.ndarray, "h w c"], kernel: Float[np.ndarray, "k k"]
) -> Float32[np.ndarray, "h w c"]:
    """The image convolved with a kernel whose centre is k // 2, along both axes at once; edges are
    mirrored as in `blurred`."""
    (h, w), k = image.shape[:2], len(kernel)
    before, after = k - 1 - k // 2, k // 2
    rows, columns = (
        reflected(np.arange(-before, side + after), side, edge_twice=False) for side in (h, w)
    )
    padded = image.transpose(2, 0, 1)[:, rows[:, None], columns]
    sides = [fft.next_fast_len(side, real=True) for side in padded.shape[1:]]
    transfer = fft.rfft2(kernel.astype(np.float32), sides)
    made = fft.irfft2(fft.rfft2(padded, sides) * transfer, sides)
    return made[:, k - 1 : k - 1 + h, k - 1 : k - 1 + w].transpose(1, 2, 0)
