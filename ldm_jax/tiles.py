"""Decoding of large latents in overlapping tiles, so that the decoder needs the memory of one."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32


def decode_tiled(
    decode: Callable[[Array], Array],
    latents: Float[Array, "b h w z"],
    tile: int,
    overlap: int,
    factor: int,
) -> Float[Array, "b h2 w2 c"]:
    """`decode(latents)`, tile by tile: one program for all, run one after the other.

    Neighbours share at least `overlap` latents and fade into each other over half of these, about
    their middle; the outer quarters are context only. So the result is that of `decode` wherever
    a latent reaches no further than `overlap / 4` latents. What decoders see of the whole picture
    (attention, statistics of norms) they see of the tile.

    Args:
        decode: latents [b, h, w, z] to pictures [b, h * factor, w * factor, c], for any h and w.
        tile: side of a tile in latents; a picture's side shorter than this is one tile.
        overlap: in latents, less than `tile`.

    Raises:
        ValueError: an overlap that leaves no progress, or a `decode` of another factor.
    """
    if not 0 <= overlap < tile:
        raise ValueError(
            f"tiles of {tile} latents cannot overlap by {overlap}; the overlap must be 0 or more "
            "and less than the tile"
        )
    b, h, w, z = latents.shape
    rows, columns = min(tile, h), min(tile, w)
    tops, vertical = _layout(h, rows, overlap, factor)
    lefts, horizontal = _layout(w, columns, overlap, factor)
    made = jax.eval_shape(decode, jax.ShapeDtypeStruct((b, rows, columns, z), latents.dtype))
    if made.shape[:3] != (b, rows * factor, columns * factor):
        raise ValueError(
            f"decode makes {made.shape[1]}x{made.shape[2]} pixels of {rows}x{columns} latents, "
            f"which is not {factor} times as many"
        )

    def add(picture: Array, place: tuple[Array, ...]) -> tuple[Array, None]:
        top, left, fade_y, fade_x = place
        part = jax.lax.dynamic_slice(latents, (0, top, left, 0), (b, rows, columns, z))
        weight = jnp.outer(fade_y, fade_x)[None, :, :, None]
        part = decode(part).astype(jnp.float32) * weight
        corner = (0, top * factor, left * factor, 0)
        below = jax.lax.dynamic_slice(picture, corner, part.shape)
        return jax.lax.dynamic_update_slice(picture, below + part, corner), None

    # Every pair of a row and a column of tiles.
    i, j = (index.ravel() for index in np.indices((len(tops), len(lefts))))
    places = tuple(map(jnp.asarray, (tops[i], lefts[j], vertical[i], horizontal[j])))
    empty = jnp.zeros((b, h * factor, w * factor, made.shape[3]), jnp.float32)
    picture, _ = jax.lax.scan(add, empty, places)
    return picture.astype(made.dtype)


def _layout(
    length: int, tile: int, overlap: int, factor: int
) -> tuple[np.ndarray, Float32[np.ndarray, "n pixels"]]:
    """First latent of each tile along one side, and the weight of each of its pixels.

    Tile i fades out and i + 1 fades in along one ramp about the middle of what they share. A
    tile's weight is the ramp before it minus the ramp after it, so that they sum to one.
    """
    count = 1 if tile == length else -(-(length - overlap) // (tile - overlap))
    starts = np.round(np.linspace(0, length - tile, count)).astype(np.int32)
    pixels = (np.arange(length * factor) + 0.5) / factor
    middles = (starts[:-1] + tile + starts[1:]) / 2
    # With no overlap the step lies between two pixels.
    width = max(overlap / 2, 1 / factor)
    ramps = np.clip((pixels - middles[:, None]) / width + 0.5, 0, 1)
    ramps = np.concatenate([np.ones((1, len(pixels))), ramps, np.zeros((1, len(pixels)))])
    weights = (ramps[:-1] - ramps[1:]).astype(np.float32)
    inside = starts[:, None] * factor + np.arange(tile * factor)
    return starts, np.take_along_axis(weights, inside, axis=1)
