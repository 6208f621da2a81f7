"""The first stage of pixel diffusion: latents are pixels."""

from flax import linen as nn
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks import Point


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
