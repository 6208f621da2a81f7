"""Pixels: what images are in the networks, and the first stage whose latents they are."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, UInt8

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks import Point


def to_pixels(images: UInt8[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """uint8 images [0, 255] → pixels in [-1, 1]."""
    return images.astype(jnp.float32) / 127.5 - 1


def to_images(pixels: Float[Array, "b h w c"]) -> UInt8[Array, "b h w c"]:
    """Pixels in [-1, 1] → uint8 images, rounded to nearest and clipped."""
    return jnp.clip(jnp.round((pixels + 1) * 127.5), 0, 255).astype(jnp.uint8)


def one_hot(class_map: Int[Array, "b h w"], num_classes: int) -> Float[Array, "b h w k"]:
    """Class maps → pixels of first stages of class maps: 1 in the channel of the class, else 0; 0
    in all where there is no class, -1."""
    return jax.nn.one_hot(class_map, num_classes, dtype=jnp.float32)


class Pixels(nn.Module):
    """An autoencoder that changes nothing and has no parameters."""

    config: cfg.Pixels

    def encode(self, images: Float[Array, "b h w c"]) -> Point:
        """Images in [-1, 1] as latents."""
        return Point(images)

    def decode(self, latents: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The images that latents are."""
        return latents

    def __call__(
        self, images: Float[Array, "b h w c"], noise: Float[Array, "b h w n"] | None = None
    ) -> tuple[Float[Array, "b h w c"], Point]:
        """The images, and what encodes them."""
        return images, Point(images)
