"""LPIPS, the distance of two pictures in the features of VGG16 (Zhang 2018, arXiv:1801.03924)."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Float32

from ldm_jax.core.sharding import split_batch
from ldm_jax.models.layers import Conv, ModuleList, conv2d

STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""The convolutions between poolings, under torchvision's numbers; features are compared after the
last of each, which are relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3."""
WIDTHS = (64, 128, 256, 512, 512)
EPSILON = 1e-10
# From [-1, 1] to what VGG16 was trained on: ImageNet's mean and deviation, for pixels in [0, 1],
# moved and stretched.
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

    Names are those of torchvision's VGG16 (`features.0`, …) and of the `lpips` package
    (`lin0`, …). Convolutions are computed in `dtype`, all else in float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], y: Float[Array, "b h w 3"]
    ) -> Float32[Array, "b"]:
        """Raises ValueError for images with a side under 16 pixels, which pooling leaves empty."""
        if min(x.shape[1:3]) < 16:
            raise ValueError(
                f"LPIPS pools sides by 16; the images have {x.shape[1]}x{x.shape[2]} pixels"
            )
        conv = partial(Conv, dtype=self.dtype)
        numbered: list[partial | None] = [None] * (STAGES[-1][-1] + 1)
        for width, numbers in zip(WIDTHS, STAGES, strict=True):
            for i in numbers:
                numbered[i] = partial(conv, width)
        features = ModuleList(tuple(numbered), name="features")
        x, y = _scaled(x), _scaled(y)
        total = jnp.zeros(len(x))
        for stage, numbers in enumerate(STAGES):
            if stage:
                x, y = _pooled(x), _pooled(y)
            for i in numbers:
                x, y = nn.relu(features(i, x)), nn.relu(features(i, y))
            difference = (_unit(x) - _unit(y)) ** 2
            total += Head(name=f"lin{stage}")(difference).mean((1, 2, 3))
        return total


def _scaled(images: Float[Array, "b h w 3"]) -> Float32[Array, "b h w 3"]:
    return (images.astype(jnp.float32) - SHIFT[None, None, None]) / SCALE[None, None, None]


def _pooled(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    return split_batch(nn.max_pool(x, (2, 2), strides=(2, 2)))


def _unit(x: Float[Array, "b h w c"]) -> Float32[Array, "b h w c"]:
    """Each pixel's features over their length + 1e-10."""
    x = x.astype(jnp.float32)
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    # Where all features are 0 the root has no slope, and its derivative would be NaN.
    length = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
    return x / (length + EPSILON)
