"""Convolution, normalisation, resampling and the residual block that all networks share.

Parameter names follow diffusers: a dot of its state dict is a level here, and list items are
levels called `0`, `1`, ….
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, Num

from ldm_jax.core import rngs
from ldm_jax.core.sharding import split_batch
from ldm_jax.models.convolution import conv2d, conv2d_doubled, double

zeros = nn.initializers.zeros_init()
lecun = nn.initializers.lecun_normal()


class ModuleList(nn.Module):
    """Holds modules under the names `0`, `1`, …, as torch's ModuleList does.

    `make[i]` is called without arguments to make module i; None leaves that number free.
    """

    make: tuple[Callable[[], nn.Module] | None, ...]

    def setup(self) -> None:
        for i, make in enumerate(self.make):
            if make is not None:
                setattr(self, str(i), make())

    def __call__(self, i: int, *args: Any) -> Any:
        """Module i applied to `args`."""
        return getattr(self, str(i))(*args)


class Conv(nn.Module):
    """Square convolution; float32 parameters, computed in `dtype`.

    With `doubled` it sees each pixel four times, as `double` makes them; for 3x3 kernels of one
    pixel's stride and padding.
    """

    features: int
    kernel_size: int = 3
    stride: int = 1
    padding: tuple[int, int] = (1, 1)
    doubled: bool = False
    dtype: DTypeLike = jnp.float32
    kernel_init: Callable[..., Any] = lecun
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        if self.doubled:
            if (self.kernel_size, self.stride, self.padding) != (3, 1, (1, 1)):
                raise ValueError("a convolution of doubled pixels has 3x3 kernels and keeps sides")
            x = conv2d_doubled(x, kernel)
        else:
            x = conv2d(x, kernel, self.stride, self.padding)
        if self.use_bias:
            bias = self.param("bias", zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype)[None, None, None]
        return split_batch(x)


class Embed(nn.Module):
    """Rows of a float32 table, which are cast after they are taken: a row that many tokens take,
    such as that of padding, gets the sum of their gradients in float32."""

    num_embeddings: int
    features: int
    dtype: DTypeLike = jnp.float32
    embedding_init: Callable[..., Any] = nn.initializers.normal(1.0)

    def setup(self) -> None:
        shape = (self.num_embeddings, self.features)
        self.embedding = self.param("embedding", self.embedding_init, shape, jnp.float32)

    def __call__(self, numbers: Int[Array, "*s"]) -> Float[Array, "*s d"]:
        return jnp.take(self.embedding, numbers, axis=0).astype(self.dtype)

    def first(self, count: int) -> Float[Array, "n d"]:
        """Rows 0 to `count` - 1."""
        return jnp.asarray(self.embedding)[:count].astype(self.dtype)


class GroupNorm(nn.Module):
    """Group normalisation over all axes but the first, with float32 statistics.

    The variance is E[x²] − E[x]², so that both moments come from one pass. Sums are over space
    first, then over a group's channels: CPUs are then two to four times as fast backwards.

    A `shift` of each channel is added to x first. Outside, the convolution before would take the
    sum over on GPUs, for which the shift is written to memory for every pixel.
    """

    groups: int
    epsilon: float
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *space c"], shift: Float[Array, "b c"] | None = None
    ) -> Float[Array, "b *space c"]:
        batch, channels = x.shape[0], x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", zeros, (channels,), jnp.float32)
        y = x.astype(jnp.float32).reshape(batch, -1, channels)
        if shift is not None:
            # Spread before it is float32, so that its gradient is the sum of x's as that is kept.
            spread = jnp.broadcast_to(shift[:, None], y.shape)
            y = y + spread.astype(jnp.float32)

        def group_mean(values: Float[Array, "b n c"]) -> Float[Array, "b c"]:
            means = values.mean(1).reshape(batch, self.groups, -1).mean(-1)
            return jnp.repeat(means, channels // self.groups, axis=-1)

        mean = group_mean(y)
        variance = jnp.maximum(group_mean(y * y) - mean * mean, 0)
        factor = jax.lax.rsqrt(variance + self.epsilon) * scale[None]
        offset = bias[None] - mean * factor
        return (y * factor[:, None] + offset[:, None]).reshape(x.shape).astype(self.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation as torch has it, with float32 statistics."""

    dtype: DTypeLike = jnp.float32
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
        channels = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones_init(), (channels,), jnp.float32)
        bias = self.param("bias", zeros, (channels,), jnp.float32)
        y = x.astype(jnp.float32).reshape(-1, channels)
        mean = y.mean(-1)
        variance = jnp.maximum((y * y).mean(-1) - mean * mean, 0)
        factor = jax.lax.rsqrt(variance + self.epsilon)
        y = (y - mean[:, None]) * factor[:, None] * scale[None] + bias[None]
        return y.reshape(x.shape).astype(self.dtype)


def gelu(x: Float[Array, "*s"]) -> Float[Array, "*s"]:
    """x Φ(x), with Φ the normal distribution function (Hendrycks 2016, arXiv:1606.08415).

    Of erf and in float32, as PyTorch computes it: to 1e-7 of x, where that of erfc is as precise
    as the value, which is near 0 there, and takes a CPU three times as long.
    """
    y = x if x.dtype.itemsize >= 4 else x.astype(jnp.float32)
    return (y * 0.5 * (1 + jax.lax.erf(y * math.sqrt(0.5)))).astype(x.dtype)


def timestep_embedding(t: Num[Array, " b"], dim: int) -> Float[Array, "b {dim}"]:
    """[cos(t f), sin(t f)] with f_i = 10000^(−i / half) (Ho 2020, in CompVis' order)."""
    half = dim // 2
    frequencies = jnp.exp(jnp.arange(half, dtype=jnp.float32) * (-jnp.log(10000.0) / half))
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """Two linear layers with a SiLU between them."""

    width: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b d"]) -> Float[Array, "b e"]:
        x = nn.Dense(self.width, dtype=self.dtype, name="linear_1")(x)
        return split_batch(nn.Dense(self.width, dtype=self.dtype, name="linear_2")(nn.silu(x)))


class Downsample(nn.Module):
    """Strided 3x3 convolution to half the sides.

    `padding` is (1, 1) in the U-Net and (0, 1), after the end only, in the autoencoder.
    """

    features: int
    padding: tuple[int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        return Conv(
            self.features, stride=2, padding=self.padding, dtype=self.dtype, name="conv"
        )(x)  # fmt: skip


class Upsample(nn.Module):
    """Nearest-neighbour doubling of the sides, then a 3x3 convolution.

    With `size`, height and width, what lies beyond is cut off before the convolution.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], size: tuple[int, int] | None = None
    ) -> Float[Array, "b h2 w2 d"]:
        sides = tuple(2 * side for side in x.shape[1:3])
        whole = size is None or tuple(size) == sides
        x = x if whole else double(x)[:, : size[0], : size[1]]
        return Conv(self.features, doubled=whole, dtype=self.dtype, name="conv")(x)


def halve(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The mean of each two by two pixels."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


RESAMPLE: dict[str, Callable[[Array], Array]] = {"halve": halve, "double": double}


class Dropout(nn.Module):
    """Zeroes a share `rate` of each example's values, and scales the others to the same mean
    (Srivastava 2014).

    What is zeroed is a function of the example's key and of the layer's path in the network.
    Linen's own draws one mask for a whole batch, which changes with the other examples in it.
    """

    rate: float

    def __call__(
        self, x: Float[Array, "b *d"], keys: Key[Array, "b"] | None
    ) -> Float[Array, "b *d"]:
        """`x` as it is where `keys` is None, outside of training."""
        if keys is None or self.rate == 0:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)

        def kept(key: Key[Array, ""]) -> Array:
            return jax.random.bernoulli(key, 1 - self.rate, x.shape[1:])

        keep = jax.vmap(kept)(rngs.named(keys, "/".join(self.path)))
        return jnp.where(keep, x / (1 - self.rate), 0)


class ResnetBlock(nn.Module):
    """norm, SiLU, conv, twice, with the time embedding between and a residual around.

    With `time_scale_shift` the embedding scales and shifts the second norm (FiLM); otherwise
    it is added before it. With `zero_close` the second convolution starts at zero, so that a
    fresh block is its shortcut. `resample` halves or doubles the sides, before the first
    convolution and in the shortcut (Dhariwal 2021, section 3). In training `keys` are the
    examples' own, for dropout.
    """

    features: int
    groups: int
    epsilon: float
    dtype: DTypeLike = jnp.float32
    time_scale_shift: bool = False
    dropout: float = 0.0
    zero_close: bool = False
    resample: str | None = None
    """`halve`, `double` or None."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        time: Float[Array, "b e"] | None = None,
        keys: Key[Array, "b"] | None = None,
    ) -> Float[Array, "b h2 w2 d"]:
        def conv(name: str, **kwargs: Any) -> Conv:
            return Conv(self.features, dtype=self.dtype, name=name, **kwargs)

        h = nn.silu(GroupNorm(self.groups, self.epsilon, self.dtype, name="norm1")(x))
        if self.resample is not None:
            change = RESAMPLE[self.resample]
            x, h = change(x), change(h)
        h = conv("conv1")(h)
        shift = None
        if time is not None:
            width = self.features * (2 if self.time_scale_shift else 1)
            shift = nn.Dense(width, dtype=self.dtype, name="time_emb_proj")(nn.silu(time))
        norm = GroupNorm(self.groups, self.epsilon, self.dtype, name="norm2")
        if self.time_scale_shift and shift is not None:
            scale, shift = jnp.split(shift[:, None, None], 2, axis=-1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h, shift)
        h = Dropout(self.dropout, name="drop")(nn.silu(h), keys)
        h = conv("conv2", kernel_init=zeros if self.zero_close else lecun)(h)
        if x.shape[-1] != self.features:
            x = conv("conv_shortcut", kernel_size=1, padding=(0, 0))(x)
        return split_batch(x + h)


def fold(x: Float[Array, "b h w c"], p: int) -> Float[Array, "b h2 w2 c2"]:
    """Space to depth: p x p pixels become the channels of one, rows first."""
    if p == 1:
        return x
    b, h, w, c = x.shape
    x = x.reshape(b, h // p, p, w // p, p, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // p, w // p, p * p * c)


def unfold(x: Float[Array, "b h w c"], p: int) -> Float[Array, "b h2 w2 c2"]:
    """Depth to space, the inverse of `fold`."""
    if p == 1:
        return x
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, p, p, c // p**2).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * p, w * p, c // p**2)


def check_sides(x: Array, factor: int, what: str) -> None:
    """Raises ValueError unless both sides of NHWC `x` are multiples of `factor`."""
    if x.shape[1] % factor or x.shape[2] % factor:
        raise ValueError(
            f"{what} has sides {x.shape[1]}x{x.shape[2]}; both must be multiples of {factor}"
        )
