"""LPIPS, the distance of two pictures in the features of a network (Zhang 2018,
arXiv:1801.03924)."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from ldm_jax.models.backbones import BACKBONES, Name
from ldm_jax.models.convolution import conv2d

EPSILON = 1e-10
# From [-1, 1] to what the networks were trained on: ImageNet's mean and deviation, for pixels in
# [0, 1], moved and stretched.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)


class Head(nn.Module):
    """A weight for each channel, as a convolution over one pixel without bias."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w 1"]:
        shape = (1, 1, x.shape[-1], 1)
        kernel = self.param("kernel", nn.initializers.ones_init(), shape, jnp.float32)
        return conv2d(x, kernel, padding=(0, 0))


class LPIPS(nn.Module):
    """The distance of each pair of images [-1, 1]: 0 for equal ones, seldom above 1.

    Losses are defined with VGG16 (`vgg`), numbers that are compared mostly with AlexNet (`alex`).
    Names are those of torchvision's networks (`features.0`, …) and of the `lpips` package
    (`lin0`, …). Convolutions are computed in `dtype`, all else in float32.
    """

    dtype: DTypeLike = jnp.float32
    network: Name = "vgg"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]
    ) -> Float32[Array, "b"]:
        """Raises ValueError for images with a side that pooling leaves empty: under 16 pixels, 31
        for AlexNet."""
        backbone = BACKBONES[self.network]
        if min(x.shape[1:3]) < backbone.least:
            raise ValueError(
                f"LPIPS pools {backbone.least} pixels to one; the images have "
                f"{x.shape[1]}x{x.shape[2]} pixels"
            )
        features = backbone.modules(self.dtype)
        x, y = _scaled(x), _scaled(y)
        total = jnp.zeros(len(x))
        for i in range(len(backbone.stages)):
            x, y = backbone.stage(features, i, x), backbone.stage(features, i, y)
            difference = (_unit(x) - _unit(y)) ** 2
            total += Head(name=f"lin{i}")(difference).mean((1, 2, 3))
        return total


def _scaled(images: Float[Array, "b h w 3"]) -> Float32[Array, "b h w 3"]:
    return (images.astype(jnp.float32) - SHIFT[None, None, None]) / SCALE[None, None, None]


def _unit(x: Float[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
    """Each pixel's features over their length + 1e-10."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    # Where all features are 0 the root has no slope, and its derivative would be NaN.
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return x / (length + EPSILON)
