"""Resizing of batches as the programs do it that scores are compared with, each to rounding.

All can be compiled and run on any device. Images are 0..255; sides are height and width.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from ldm_jax.core.cubic import cubic

Sides = tuple[int, int]
_FIXED_POINT = 22
"""Bits behind the point of Pillow's weights for images of 8 bits."""


def tensorflow_bilinear(
    images: Float32[Array, "b h w c"], sides: Sides
) -> Float32[Array, "b h2 w2 c"]:
    """TensorFlow 1's `ResizeBilinear`: pixel i is taken from i·old/new, without the shift of half
    a pixel that others have, and without antialiasing."""
    rows, columns = (
        _split(np.arange(new, dtype=np.float32) * np.float32(old / new), old)
        for old, new in zip(images.shape[1:3], sides, strict=True)
    )
    return _interpolated(images, rows, columns)


def torch_bilinear(images: Float32[Array, "b h w c"], sides: Sides) -> Float32[Array, "b h2 w2 c"]:
    """PyTorch's `interpolate(mode="bilinear")`: centres on centres, no antialiasing."""
    rows, columns = (
        _split(_centred(old, new), old) for old, new in zip(images.shape[1:3], sides, strict=True)
    )
    return _interpolated(images, rows, columns)


def pillow_bicubic(images: Float32[Array, "b h w c"], sides: Sides) -> Float32[Array, "b h2 w2 c"]:
    """Pillow's antialiased bicubic of each channel in floating point (mode F), clipped to 0..255
    but not rounded: clean-fid's (Parmar 2022, arXiv:2104.11222)."""
    down, across = (
        _weights(old, new).astype(np.float32)
        for old, new in zip(images.shape[1:3], sides, strict=True)
    )
    exact = jax.lax.Precision.HIGHEST
    images = jnp.einsum("bhwc,lw->bhlc", images, across, precision=exact)
    images = jnp.einsum("bhwc,kh->bkwc", images, down, precision=exact)
    return jnp.clip(images, 0, 255)


def pillow_bicubic_rounded(
    images: UInt8[Array, "b h w c"], sides: Sides
) -> UInt8[Array, "b h2 w2 c"]:
    """Pillow's antialiased bicubic of images of 8 bits, bit for bit: in fixed point, rounded and
    clipped after each axis."""
    down, across = (
        np.round(_weights(old, new) * 2**_FIXED_POINT).astype(np.int32)
        for old, new in zip(images.shape[1:3], sides, strict=True)
    )
    wide = _to_bytes(jnp.einsum("bhwc,lw->bhlc", images.astype(jnp.int32), across))
    return _to_bytes(jnp.einsum("bhwc,kh->bkwc", wide, down)).astype(jnp.uint8)


def _to_bytes(sums: Int[Array, "b h w c"]) -> Int[Array, "b h w c"]:
    half = 1 << (_FIXED_POINT - 1)
    return jnp.clip((sums + half) >> _FIXED_POINT, 0, 255)


def _centred(old: int, new: int) -> Float32[np.ndarray, " n"]:
    """Where the centres of new pixels lie among the old ones, which begin at 0."""
    # The scale is rounded to float32, and then the whole once more, as processors do it in one go.
    at = np.float64(np.float32(old / new)) * (np.arange(new) + 0.5) - 0.5
    return np.maximum(at, 0).astype(np.float32)


class _Between(NamedTuple):
    """The old pixels before and after each new one, and how far it is from the first of them."""

    before: Int[np.ndarray, " n"]
    after: Int[np.ndarray, " n"]
    share: Float32[np.ndarray, " n"]


def _split(at: Float32[np.ndarray, " n"], old: int) -> _Between:
    before = at.astype(np.int32)
    return _Between(before, np.minimum(before + 1, old - 1), at - before.astype(np.float32))


def _interpolated(
    images: Float32[Array, "b h w c"], rows: _Between, columns: _Between
) -> Float32[Array, "b h2 w2 c"]:
    """Along each row, then between the rows."""
    left, right = images[:, :, columns.before], images[:, :, columns.after]
    images = left + (right - left) * columns.share[None, None, :, None]
    above, below = images[:, rows.before], images[:, rows.after]
    return above + (below - above) * rows.share[None, :, None, None]


def _weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    """What each new pixel is made of: a row of Pillow's weights, float64, which sum to 1.

    The cubic (a = -0.5) is as much wider than two pixels as the image shrinks.
    """
    scale = old / new
    stretch = max(scale, 1.0)
    centres = (np.arange(new) + 0.5) * scale
    first = np.maximum((centres - 2 * stretch + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + 2 * stretch + 0.5).astype(np.int64), old)
    pixels = np.arange(old)[None]
    weights = cubic((pixels + 0.5 - centres[:, None]) / stretch, -0.5)
    weights = np.where((pixels >= first[:, None]) & (pixels < last[:, None]), weights, 0)
    return weights / weights.sum(1, keepdims=True)
