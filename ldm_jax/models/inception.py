"""The Inception network of image scores: the graph of 2015-12-05 (Szegedy 2015, arXiv:1512.00567),
in which FID and its kin are measured.

It is not torchvision's network. Average pools leave the padding out of the mean, the last block
pools its branch by maximum, there are 1008 logits, and nothing is trained: batch norms use their
statistics, which are parameters like all others. Names are those of torchvision's state dict.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Float32

from ldm_jax.core.sharding import split_batch
from ldm_jax.models.convolution import convolve

SIDE = 299
"""Pixels of a side of the images that it was trained on."""
CLASSES = 1008
EPSILON = 1e-3
PAYS = 32
"""Pixels of a side from which on, with strides, outputs to cut off cost less than they save."""
SPATIAL_CHANNELS = 7
"""Of the first branch of Mixed_6d, which sFID is measured in (Nash 2021, arXiv:2103.03841)."""
TAPS = {
    "64": 64, "192": 192, "768": 768, "2048": 2048, "spatial": 17 * 17 * SPATIAL_CHANNELS,
    "logits_unbiased": CLASSES, "logits": CLASSES,
}  # fmt: skip
"""What the network tells of an image, and how many numbers each has."""

_ones = nn.initializers.ones_init()
_zeros = nn.initializers.zeros_init()


class BatchNorm(nn.Module):
    """Batch normalisation by the statistics of training."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        shape = (x.shape[-1],)
        scale = self.param("scale", _ones, shape, jnp.float32)
        bias = self.param("bias", _zeros, shape, jnp.float32)
        mean = self.param("running_mean", _zeros, shape, jnp.float32)
        variance = self.param("running_var", _ones, shape, jnp.float32)
        factor = scale * jax.lax.rsqrt(variance + EPSILON)
        return x * factor[None, None, None] + (bias - mean * factor)[None, None, None]


class Kernel(nn.Module):
    """A convolution without bias, `kernel` pixels high and wide, with so much padding of zeros."""

    features: int
    kernel: tuple[int, int]
    stride: int
    padding: tuple[int, int]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        if self.kernel == (1, 1):
            return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
        rows, columns = self.padding
        padding = ((rows, rows), (columns, columns))
        plain = partial(convolve, stride=self.stride, padding=padding)
        if self.stride == 1 or self.padding != (0, 0) or x.shape[1] < PAYS:
            return plain(x, kernel)
        padded = partial(_padded_and_cut, stride=self.stride)
        return jax.lax.platform_dependent(x, kernel, cpu=padded, default=plain)


def _padded_and_cut(x: Array, kernel: Array, stride: int) -> Array:
    """A convolution without padding, computed with one more output on each side: on CPUs XLA takes
    up to three times as long where there is no padding."""
    return convolve(x, kernel, stride, ((stride, stride),) * 2)[:, 1:-1, 1:-1]


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU."""

    features: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: tuple[int, int] = (0, 0)

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        x = Kernel(self.features, self.kernel, self.stride, self.padding, name="conv")(x)
        return split_batch(nn.relu(BatchNorm(name="bn")(x)))


def _same(name: str, features: int, height: int, width: int) -> ConvUnit:
    """A unit that keeps the sides."""
    return ConvUnit(features, (height, width), padding=(height // 2, width // 2), name=name)


def _halving(name: str, features: int) -> ConvUnit:
    return ConvUnit(features, (3, 3), stride=2, name=name)


def _max_pooled(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    return split_batch(nn.max_pool(x, (3, 3), strides=(2, 2)))


def _average(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """The mean of the neighbours that there are: padding does not count."""
    return nn.avg_pool(x, (3, 3), padding=((1, 1), (1, 1)), count_include_pad=False)


def _maximum(x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    return nn.max_pool(x, (3, 3), padding=((1, 1), (1, 1)))


class BlockA(nn.Module):
    """Mixed_5b to Mixed_5d."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        five = _same("branch5x5_2", 64, 5, 5)(_same("branch5x5_1", 48, 1, 1)(x))
        three = _same("branch3x3dbl_1", 64, 1, 1)(x)
        three = _same("branch3x3dbl_2", 96, 3, 3)(three)
        three = _same("branch3x3dbl_3", 96, 3, 3)(three)
        one = _same("branch1x1", 64, 1, 1)(x)
        pooled = _same("branch_pool", self.pool_features, 1, 1)(_average(x))
        return jnp.concatenate([one, five, three, pooled], -1)


class BlockB(nn.Module):
    """Mixed_6a, which halves the sides."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        double = _same("branch3x3dbl_1", 64, 1, 1)(x)
        double = _same("branch3x3dbl_2", 96, 3, 3)(double)
        double = _halving("branch3x3dbl_3", 96)(double)
        return jnp.concatenate([_halving("branch3x3", 384)(x), double, _max_pooled(x)], -1)


class BlockC(nn.Module):
    """Mixed_6b to Mixed_6e."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> tuple[Array, Array]:
        """The block's output, and that of its first branch."""
        seven = _same("branch7x7_1", self.width, 1, 1)(x)
        seven = _same("branch7x7_2", self.width, 1, 7)(seven)
        seven = _same("branch7x7_3", 192, 7, 1)(seven)
        double = _same("branch7x7dbl_1", self.width, 1, 1)(x)
        double = _same("branch7x7dbl_2", self.width, 7, 1)(double)
        double = _same("branch7x7dbl_3", self.width, 1, 7)(double)
        double = _same("branch7x7dbl_4", self.width, 7, 1)(double)
        double = _same("branch7x7dbl_5", 192, 1, 7)(double)
        one = _same("branch1x1", 192, 1, 1)(x)
        pooled = _same("branch_pool", 192, 1, 1)(_average(x))
        return jnp.concatenate([one, seven, double, pooled], -1), one


class BlockD(nn.Module):
    """Mixed_7a, which halves the sides."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        three = _halving("branch3x3_2", 320)(_same("branch3x3_1", 192, 1, 1)(x))
        seven = _same("branch7x7x3_1", 192, 1, 1)(x)
        seven = _same("branch7x7x3_2", 192, 1, 7)(seven)
        seven = _same("branch7x7x3_3", 192, 7, 1)(seven)
        seven = _halving("branch7x7x3_4", 192)(seven)
        return jnp.concatenate([three, seven, _max_pooled(x)], -1)


class BlockE(nn.Module):
    """Mixed_7b and Mixed_7c, which differ in how they pool."""

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w d"]:
        three = _same("branch3x3_1", 384, 1, 1)(x)
        double = _same("branch3x3dbl_2", 384, 3, 3)(_same("branch3x3dbl_1", 448, 1, 1)(x))
        return jnp.concatenate([
            _same("branch1x1", 320, 1, 1)(x),
            _same("branch3x3_2a", 384, 1, 3)(three),
            _same("branch3x3_2b", 384, 3, 1)(three),
            _same("branch3x3dbl_3a", 384, 1, 3)(double),
            _same("branch3x3dbl_3b", 384, 3, 1)(double),
            _same("branch_pool", 192, 1, 1)(self.pool(x)),
        ], -1)  # fmt: skip


class Inception(nn.Module):
    """Images [-1, 1] of 299 x 299 pixels to all of `TAPS`.

    `64`, `192` (after the first two max pools), `768` (Mixed_6e) and `2048` are means over space.
    `spatial` is the first branch of Mixed_6d after its ReLU, the first 7 channels of its 17 x 17
    places, rows first. `logits_unbiased` are the logits without their biases, of which IS is made.
    What is not used costs nothing under `jit`. All is computed in float32; give the precision of
    products from outside (`jax.default_matmul_precision`).
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w 3"]) -> dict[str, Float32[Array, "b _"]]:
        """Raises ValueError for images of other sides, whose features are not comparable."""
        if x.shape[1:3] != (SIDE, SIDE):
            raise ValueError(
                f"Inception reads images of {SIDE}x{SIDE} pixels, not {x.shape[1]}x{x.shape[2]}"
            )
        taps = {}
        x = _halving("Conv2d_1a_3x3", 32)(x)
        x = ConvUnit(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = _max_pooled(_same("Conv2d_2b_3x3", 64, 3, 3)(x))
        taps["64"] = x.mean((1, 2))
        x = _same("Conv2d_3b_1x1", 80, 1, 1)(x)
        x = _max_pooled(ConvUnit(192, (3, 3), name="Conv2d_4a_3x3")(x))
        taps["192"] = x.mean((1, 2))
        for name, pool_features in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(pool_features, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        x, _ = BlockC(128, name="Mixed_6b")(x)
        x, _ = BlockC(160, name="Mixed_6c")(x)
        x, first = BlockC(160, name="Mixed_6d")(x)
        taps["spatial"] = first[..., :SPATIAL_CHANNELS].reshape(len(x), -1)
        x, _ = BlockC(192, name="Mixed_6e")(x)
        taps["768"] = x.mean((1, 2))
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(_average, name="Mixed_7b")(x)
        x = BlockE(_maximum, name="Mixed_7c")(x)
        taps["2048"] = pooled = x.mean((1, 2))
        taps["logits_unbiased"], taps["logits"] = Classifier(name="fc")(pooled)
        return taps


class Classifier(nn.Module):
    """One dense layer, whose biases can be left out."""

    @nn.compact
    def __call__(self, x: Float[Array, "b c"]) -> tuple[Array, Array]:
        """The logits without and with their biases."""
        shape = (x.shape[-1], CLASSES)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", _zeros, (CLASSES,), jnp.float32)
        without = x @ kernel
        return without, without + bias[None]
