"""Encoding, denoising and decoding of large pictures in overlapping tiles, in the memory of one.

Neighbouring tiles fade into each other. A network that looks no further than a quarter of what they
share gives what it gives of the whole; what it sees of the whole picture (attention, statistics of
norms) it sees of the tile.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Key, Num

from ldm_jax.latent_diffusion import UNet
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.pixels import Pixels

SHARED = 4
"""Neighbouring tiles share so much of a tile's side: a quarter."""


@dataclass(frozen=True)
class TiledAutoencoder:
    """An autoencoder that encodes and decodes in tiles of `tile` pixels along each side."""

    autoencoder: Autoencoder | Pixels
    tile: int

    def apply(self, variables: Any, x: Array, *, method: Literal["encode", "decode"]) -> Any:
        """As Flax's of the autoencoder, for its two methods."""
        factor = self.autoencoder.config.factor
        whole = partial(self.autoencoder.apply, variables, method=method)
        tiled = encode_tiled if method == "encode" else decode_tiled
        side = self.tile // factor
        return tiled(whole, x, side, side // SHARED, factor)


@dataclass(frozen=True)
class TiledUNet:
    """A U-Net that works in tiles of `tile` latents along each side, which overlap by half.

    Every tile is shown its part of what is concatenated to the latents, and all of the rest:
    text, class, layout (Rombach 2022, section 4.3.2).
    """

    unet: UNet
    tile: int

    def apply(
        self,
        variables: Any,
        x: Float[Array, "b h w c"],
        t: Num[Array, "b"],
        condition: Condition,
        dropout: Key[Array, "b"] | None = None,
    ) -> Float[Array, "b h w d"]:
        """As Flax's of the U-Net."""
        channels, concat = x.shape[-1], condition.concat
        both = x if concat is None else jnp.concatenate([x, concat.astype(x.dtype)], axis=-1)

        def part(both: Array) -> Array:
            own = None if concat is None else both[..., channels:]
            rest = condition._replace(concat=own)
            return self.unet.apply(variables, both[..., :channels], t, rest, dropout)

        return _tiled(part, both, self.tile, self.tile // 2, 1, 1)


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
    a latent reaches no further than `overlap / 4` latents.

    Args:
        decode: latents [b, h, w, z] to pictures [b, h * factor, w * factor, c], for any h and w.
        tile: side of a tile in latents; a picture's side shorter than this is one tile.
        overlap: in latents, less than `tile`.

    Raises:
        ValueError: an overlap that leaves no progress, or a `decode` of another factor.
    """
    return _tiled(decode, latents, tile, overlap, 1, factor)


def encode_tiled(
    encode: Callable[[Array], Any],
    pixels: Float[Array, "b h w c"],
    tile: int,
    overlap: int,
    factor: int,
) -> Any:
    """`encode(pixels)`, tile by tile, as in `decode_tiled`: a `Gaussian` or a `Point`.

    Moments fade, not samples: noise is drawn once, for the whole picture.

    Args:
        encode: pixels [b, h * factor, w * factor, c] to a tree of arrays [b, h, w, z].
        tile: side of a tile in latents; a picture's side shorter than this is one tile.
        overlap: in latents, less than `tile`.

    Raises:
        ValueError: an overlap that leaves no progress, sides that are no multiples of `factor`, or
            an `encode` of another factor.
    """
    return _tiled(encode, pixels, tile, overlap, factor, 1)


def _tiled(
    function: Callable[[Array], Any],
    x: Float[Array, "b h w c"],
    tile: int,
    overlap: int,
    before: int,
    after: int,
) -> Any:
    """`function(x)` in tiles, where a latent is `before` entries of `x`, `after` of the result."""
    if not 0 <= overlap < tile:
        raise ValueError(
            f"tiles of {tile} latents cannot overlap by {overlap}; the overlap must be 0 or more "
            "and less than the tile"
        )
    b, height, width, c = x.shape
    if height % before or width % before:
        raise ValueError(f"the sides are {height}x{width}; both must be multiples of {before}")
    h, w = height // before, width // before
    rows, columns = min(tile, h), min(tile, w)
    tops, vertical = _layout(h, rows, overlap, after)
    lefts, horizontal = _layout(w, columns, overlap, after)
    part = (b, rows * before, columns * before, c)
    made = jax.eval_shape(function, jax.ShapeDtypeStruct(part, x.dtype))
    for leaf in jax.tree.leaves(made):
        if leaf.shape[:3] != (b, rows * after, columns * after):
            raise ValueError(
                f"a tile of {part[1]}x{part[2]} becomes {leaf.shape[1]}x{leaf.shape[2]}, where "
                f"{rows * after}x{columns * after} are expected"
            )

    def add(whole: Any, place: tuple[Array, ...]) -> tuple[Any, None]:
        top, left, fade_y, fade_x = place
        weight = jnp.outer(fade_y, fade_x)[None, :, :, None]
        corner = (0, top * after, left * after, 0)

        def lay(whole: Array, part: Array) -> Array:
            part = part.astype(jnp.float32) * weight
            below = jax.lax.dynamic_slice(whole, corner, part.shape)
            return jax.lax.dynamic_update_slice(whole, below + part, corner)

        tiled = function(jax.lax.dynamic_slice(x, (0, top * before, left * before, 0), part))
        return jax.tree.map(lay, whole, tiled), None

    # Every pair of a row and a column of tiles.
    i, j = (index.ravel() for index in np.indices((len(tops), len(lefts))))
    places = tuple(map(jnp.asarray, (tops[i], lefts[j], vertical[i], horizontal[j])))
    empty = jax.tree.map(
        lambda leaf: jnp.zeros((b, h * after, w * after, leaf.shape[3]), jnp.float32), made
    )
    whole, _ = jax.lax.scan(add, empty, places)
    return jax.tree.map(lambda whole, leaf: whole.astype(leaf.dtype), whole, made)


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
