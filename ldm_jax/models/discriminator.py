"""The patch discriminator of pix2pix (Isola 2017, arXiv:1611.07004), named as in VQGAN's code."""

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ldm_jax.models.layers import Conv, ModuleList, zeros

MOMENTUM = 0.1
"""The share of a new batch in the running statistics."""
EPSILON = 1e-5

Norm = Literal["batch", "none"]
_normal = nn.initializers.normal(0.02)


class BatchNorm(nn.Module):
    """Batch normalisation as torch has it, over all axes but the last.

    In training, the statistics are those of the batch, which under `jit` is the global batch on
    however many devices, and the running ones (collection `batch_stats`) move towards them, the
    variance without bias. Otherwise the running ones are used.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *space c"], train: bool) -> Float[Array, "b *space c"]:
        shape = (x.shape[-1],)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = self.param("scale", _around_one, shape, jnp.float32)
        bias = self.param("bias", zeros, shape, jnp.float32)
        rows = x.astype(jnp.float32).reshape(-1, x.shape[-1])
        mean, var = running_mean.value, running_var.value
        if train:
            mean, var = rows.mean(0), rows.var(0)
            if not self.is_initializing() and self.is_mutable_collection("batch_stats"):
                unbiased = var * (len(rows) / (len(rows) - 1))
                running_mean.value = _moved(running_mean.value, mean)
                running_var.value = _moved(running_var.value, unbiased)
        y = (rows - mean[None]) * jax.lax.rsqrt(var + EPSILON)[None] * scale[None] + bias[None]
        return y.reshape(x.shape).astype(self.dtype)


def _moved(running: Float[Array, "c"], batch: Float[Array, "c"]) -> Float[Array, "c"]:
    return (1 - MOMENTUM) * running + MOMENTUM * jax.lax.stop_gradient(batch)


class PatchGAN(nn.Module):
    """Images [-1, 1] to one logit for each overlapping patch; real patches should be positive.

    `layers` strided convolutions and two more, all 4x4. With 3 layers a patch has 70 pixels and
    the sides of the image shrink by 8, less 2. Convolutions that a norm follows have no bias.
    Convolutions start at N(0, 0.02) without bias, norms at N(1, 0.02).
    """

    width: int = 64
    layers: int = 3
    norm: Norm = "batch"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, images: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b h2 w2 1"]:
        """Logits in float32. With `train` and batch norm, statistics are the batch's, and
        `batch_stats` is updated where it is mutable.

        Raises:
            ValueError: images too small to have one patch.
        """
        if self.patches(images.shape[1]) < 1 or self.patches(images.shape[2]) < 1:
            raise ValueError(
                f"the images have {images.shape[1]}x{images.shape[2]} pixels, too few for a "
                f"discriminator with {self.layers} strided layers; give them "
                f"{3 * 2**self.layers} at least, or take fewer layers"
            )
        conv = partial(Conv, kernel_size=4, dtype=self.dtype, kernel_init=_normal)
        normed = self.norm == "batch"
        # Numbers as in a torch.nn.Sequential: a leaky ReLU takes one after each layer.
        main: list[partial | None] = [partial(conv, self.width, stride=2), None]
        for layer in range(1, self.layers + 1):
            features, stride = self.width * min(2**layer, 8), 2 if layer < self.layers else 1
            main.append(partial(conv, features, stride=stride, use_bias=not normed))
            main += [partial(BatchNorm, self.dtype) if normed else None, None]
        main.append(partial(conv, 1))
        modules = ModuleList(tuple(main), name="main")

        x = modules(0, images.astype(self.dtype))
        for i in range(2, len(main) - 1, 3):
            x = modules(i, nn.leaky_relu(x, 0.2))
            if normed:
                x = modules(i + 1, x, train)
        return modules(len(main) - 1, nn.leaky_relu(x, 0.2)).astype(jnp.float32)

    def patches(self, side: int) -> int:
        """How many logits there are along a side of so many pixels."""
        for _ in range(self.layers):
            side = side // 2
        return side - 2


def _around_one(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    return 1 + _normal(key, shape, dtype)
