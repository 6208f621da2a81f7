"""Convolutions over pixels, with the forms that are fast on each platform.

On a CPU XLA takes up to seven times as long for the gradient of a kernel as for the convolution
itself, the larger the picture the longer, and in the body of a loop or of a `cond` up to a hundred
times; the gradient of pixels takes up to ten times there. Matmuls and convolutions that are the
same sums do not. So the convolution says itself how it is differentiated, and the form is chosen
where a program is lowered for a platform.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ldm_jax.models.bilinear import bilinear

NARROW = 16
"""Channels that leave a matmul too thin to be fast, and a convolution too little to share out."""
FEW_PLACES, MANY_PLACES = 3 * 3, 4 * 4
"""Of a kernel: up to the first XLA's gradient of pixels is fast, up to the second matmuls are."""
BAND = 1024
"""Pixels of a band at most, unless one row of each image has more."""
SQUARES_FROM = 16 * 16
"""Pixels of a picture from which adding up kernels costs less than it saves. Not of a batch: each
picture is computed the same way in a batch of any size."""


def conv2d(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c d"],
    stride: int = 1,
    padding: tuple[int, int] = (1, 1),
) -> Float[Array, "b h2 w2 d"]:
    """Cross-correlation with `padding` (before, after) of zeros along both sides."""
    if kernel.shape[:2] == (1, 1) and stride == 1 and padding == (0, 0):
        return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
    options = {"stride": stride, "padding": padding}
    b, h, w, _ = x.shape
    if h * w > 4 and b * h * w > 256:
        return _convolution(x, kernel, **options)
    # XLA's convolution on CPU is 2 to 25 times slower than a matmul over so few pixels.
    return jax.lax.platform_dependent(
        x, kernel, cpu=partial(conv_as_matmul, **options), default=partial(_conv, **options)
    )


def convolve(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c d"],
    stride: int,
    padding: tuple[tuple[int, int], tuple[int, int]],
) -> Float[Array, "b h2 w2 d"]:
    """`conv2d` with zeros (above, below) and (left, right), and with XLA's own derivatives."""
    options = {"stride": stride, "padding": padding}
    if stride > 1 or min(kernel.shape[2:]) <= NARROW or x.dtype.itemsize < 4:
        return _conv_xla(x, kernel, **options)
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=partial(_conv_on_all_cores, padding=padding),
        default=partial(_conv_xla, **options),
    )


def conv_as_matmul(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "kh kw c d"],
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "b h2 w2 d"]:
    """The same as one matmul over the neighbourhoods of all pixels (im2col)."""
    kh, kw, c, features = kernel.shape
    shifted = _shifted(x, (kh, kw), stride, padding)
    columns = jnp.concatenate(shifted, axis=-1)
    return jnp.einsum("bhwk,kd->bhwd", columns, kernel.reshape(kh * kw * c, features))


def double(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Each pixel four times: nearest-neighbour upsampling whose gradient is a plain sum."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def conv2d_doubled(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"]
) -> Float[Array, "b h2 w2 d"]:
    """`conv2d` of `double(x)`, in about as many bits.

    Over pixels that are equal two by two a 3x3 kernel sees but four. On a CPU those places of the
    kernel that see the same one are added up first, which leaves four of nine multiplications; not
    in half precision, where sums of a kernel's values would be rounded, nor of few pixels, where
    adding up costs more than it saves.
    """
    _, h, w, _ = x.shape
    few = h * w < SQUARES_FROM
    return (_of_doubled if few or x.dtype.itemsize < 4 else _convolution_doubled)(x, kernel)


def _of_doubled(x: Array, kernel: Array) -> Array:
    return conv2d(double(x), kernel)


def _by_squares(x: Array, kernel: Array) -> Array:
    """All four outputs around a corner of `x`'s pixels at a time, for they see the same four."""
    b, h, w, _ = x.shape
    kernels = [both for rows in _seeing_two(kernel, 0) for both in _seeing_two(rows, 1)]
    squares = _convolution(x, jnp.concatenate(kernels, axis=-1), stride=1, padding=(1, 1))
    squares = squares.reshape(b, h + 1, w + 1, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    # The first and the last row and column are beyond the border.
    return squares.reshape(b, 2 * (h + 1), 2 * (w + 1), -1)[:, 1:-1, 1:-1]


def _seeing_two(kernel: Array, axis: int) -> tuple[Array, Array]:
    """What the output before and the one after a corner do with the two pixels that they see."""
    first, middle, last = jnp.split(kernel, 3, axis)
    before, after = [first + middle, last], [first, middle + last]
    return jnp.concatenate(before, axis), jnp.concatenate(after, axis)


def _shifted(x: Array, kernel: tuple[int, int], stride: int, padding: tuple[int, int]) -> list:
    """For each place of the kernel, the pixel under it: all that one output is made of."""
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    last_row, last_column = (
        (side - along) // stride * stride + 1
        for side, along in zip(x.shape[1:3], kernel, strict=True)
    )
    return [
        x[:, i : i + last_row : stride, j : j + last_column : stride]
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]


def _conv(x: Array, kernel: Array, stride: int, padding: tuple[int, int]) -> Array:
    return convolve(x, kernel, stride, (padding, padding))


def _conv_xla(x: Array, kernel: Array, stride: int, padding: Any) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _conv_on_all_cores(x: Array, kernel: Array, padding: Any) -> Array:
    """With more rows than `x` has, of which those at the end are cut off again.

    XLA on a CPU has two libraries for convolutions. The one that it prefers leaves all cores but
    one idle where a kernel is not large; it is not asked where the output is higher than `x`.
    """
    (above, below), columns = padding
    rows = x.shape[1] + above + below - kernel.shape[0] + 1
    more = max(x.shape[1] + 1 - rows, 0)
    return _conv_xla(x, kernel, 1, ((above, below + more), columns))[:, :rows]


# ------------------------------------------------------------------------------ its gradients


def _plain(x: Array, kernel: Array, stride: int, padding: tuple[int, int]) -> Array:
    return _conv_xla(x, kernel, stride, (padding, padding))


def _gradient_of_x(out_bar: Array, x: Any, kernel: Array, **options: Any) -> Array:
    def of(convolve: Callable[..., Array], out_bar: Array, kernel: Array) -> Array:
        return jax.linear_transpose(lambda x: convolve(x, kernel, **options), x)(out_bar)[0]

    by_xla = partial(of, _plain)
    places = math.prod(kernel.shape[:2])
    if options["stride"] == 1:
        on_cpu = partial(_gradient_as_convolution, padding=options["padding"])
    elif FEW_PLACES < places <= MANY_PLACES:
        on_cpu = partial(of, conv_as_matmul)
    else:
        return by_xla(out_bar, kernel)
    return jax.lax.platform_dependent(out_bar, kernel, cpu=on_cpu, default=by_xla)


def _gradient_as_convolution(
    out_bar: Float[Array, "b h2 w2 d"], kernel: Float[Array, "kh kw c d"], padding: tuple[int, int]
) -> Float[Array, "b h w c"]:
    """By the kernel turned around, as XLA says it too; but with a kernel that lies turned in memory
    its convolution takes the same fast way as a forward one, in loops as well."""
    turned = kernel[::-1, ::-1].swapaxes(2, 3)
    (kh, kw), (before, after) = kernel.shape[:2], padding
    rows, columns = ((k - 1 - before, k - 1 - after) for k in (kh, kw))
    return convolve(out_bar, turned, 1, (rows, columns))


def _gradient_of_kernel(out_bar: Array, x: Array, kernel: Any, **options: Any) -> Array:
    shape = kernel.shape

    def by_xla(x: Array, out_bar: Array) -> Array:
        return jax.linear_transpose(partial(_plain, x, **options), kernel)(out_bar)[0]

    if shape[-1] <= NARROW and options["stride"] == 1:
        on_cpu = partial(_gradient_of_narrow, shape=shape, padding=options["padding"])
    elif math.prod(shape[:2]) > MANY_PLACES:
        return by_xla(x, out_bar)
    elif options["stride"] == 1:
        on_cpu = partial(_gradient_of_all_places, shape=shape, padding=options["padding"])
    else:
        on_cpu = partial(_gradient_of_each_place, shape=shape, **options)
    return jax.lax.platform_dependent(x, out_bar, cpu=on_cpu, default=by_xla)


def _gradient_of_all_places(
    x: Float[Array, "b h w c"],
    out_bar: Float[Array, "b h2 w2 d"],
    shape: tuple[int, ...],
    padding: tuple[int, int],
) -> Float[Array, "kh kw c d"]:
    """One matmul: gradients as each row of the kernel sees them, times pixels as each column does.

    In bands of rows that stay in the cache; all images together, so that devices keep their own.
    The gradients come first, for a matmul over places turns its first factor around in memory.
    """
    kh, kw, c, features = shape
    before, after = padding
    h, w = x.shape[1], out_bar.shape[2]
    none = jnp.zeros((), x.dtype)
    x = jax.lax.pad(x, none, [(0, 0, 0), (0, 0, 0), (before, after, 0), (0, 0, 0)])
    # A row of pixels is seen by the output i rows before it from row i of the kernel.
    rows = (kh - 1 - before, kh - 1 - after, 0)
    out_bar = jax.lax.pad(out_bar, none, [(0, 0, 0), rows, (0, 0, 0), (0, 0, 0)])
    band = _rows_of_a_band(h, len(x) * w)

    def add_band(total: Array, first: Array) -> tuple[Array, None]:
        pixels = jax.lax.dynamic_slice_in_dim(x, first, band, axis=1)
        bars = jax.lax.dynamic_slice_in_dim(out_bar, first, band + kh - 1, axis=1)
        by_column = jnp.concatenate([pixels[:, :, j : j + w] for j in range(kw)], axis=-1)
        by_row = jnp.concatenate([bars[:, i : i + band] for i in range(kh)][::-1], axis=-1)
        return total + jnp.einsum("bhwd,bhwc->dc", by_row, by_column), None

    zero = jnp.zeros((kh * features, kw * c), x.dtype)
    found = jax.lax.scan(add_band, zero, jnp.arange(0, h, band))[0]
    return found.reshape(kh, features, kw, c).transpose(0, 2, 3, 1)


def _gradient_of_each_place(
    x: Float[Array, "b h w c"],
    out_bar: Float[Array, "b h2 w2 d"],
    shape: tuple[int, ...],
    stride: int,
    padding: tuple[int, int],
) -> Float[Array, "kh kw c d"]:
    """The same with strides: a matmul for each place of the kernel."""
    kh, kw, c, features = shape
    images, h, w, _ = out_bar.shape
    band = _rows_of_a_band(h, images * w)
    seen = (band - 1) * stride + kh
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))

    def add_band(total: Array, first: Array) -> tuple[Array, None]:
        pixels = jax.lax.dynamic_slice_in_dim(x, first * stride, seen, axis=1)
        bar = jax.lax.dynamic_slice_in_dim(out_bar, first, band, axis=1)
        shifted = _shifted(pixels, (kh, kw), stride, padding=(0, 0))
        return total + jnp.stack([jnp.einsum("bhwd,bhwc->dc", bar, y) for y in shifted]), None

    zero = jnp.zeros((kh * kw, features, c), out_bar.dtype)
    found = jax.lax.scan(add_band, zero, jnp.arange(0, h, band))[0]
    return found.swapaxes(1, 2).reshape(shape)


def _rows_of_a_band(rows: int, pixels: int) -> int:
    """The most rows, each of so many pixels, into which `rows` can be divided."""
    most = max(BAND, pixels)
    return max(n for n in range(1, rows + 1) if rows % n == 0 and n * pixels <= most)


def _gradient_of_narrow(
    x: Float[Array, "b h w c"],
    out_bar: Float[Array, "b h2 w2 d"],
    shape: tuple[int, ...],
    padding: tuple[int, int],
) -> Float[Array, "kh kw c d"]:
    """One matmul, of pixels and of what they did to all outputs: few numbers for each pixel."""
    kh, kw, c, features = shape
    # A pixel under place i of the kernel is seen by the output i places before it, and by none
    # where that is beyond the border.
    before, after = padding
    rows, columns = ((k - 1 - before, k - 1 - after, 0) for k in (kh, kw))
    none = jnp.zeros((), out_bar.dtype)
    around = jax.lax.pad(out_bar, none, [(0, 0, 0), rows, columns, (0, 0, 0)])
    seen_by = jnp.concatenate(_shifted(around, (kh, kw), 1, (0, 0))[::-1], axis=-1)
    found = jnp.einsum("bhwc,bhwk->ck", x, seen_by)
    return found.reshape(c, kh, kw, features).transpose(1, 2, 0, 3)


_convolution = bilinear(_conv, _gradient_of_x, _gradient_of_kernel)


# ------------------------------------------------------------------------------ of doubled pixels


def _conv_doubled(x: Array, kernel: Array) -> Array:
    return jax.lax.platform_dependent(x, kernel, **_DOUBLED)


def _gradient_of_x_doubled(out_bar: Array, x: Any, kernel: Array) -> Array:
    def of(convolve: Callable[..., Array], out_bar: Array, kernel: Array) -> Array:
        return jax.linear_transpose(lambda x: convolve(x, kernel), x)(out_bar)[0]

    forms = {platform: partial(of, convolve) for platform, convolve in _DOUBLED.items()}
    return jax.lax.platform_dependent(out_bar, kernel, **forms)


def _gradient_of_kernel_doubled(out_bar: Array, x: Array, kernel: Any) -> Array:
    def of(convolve: Callable[..., Array], out_bar: Array, x: Array) -> Array:
        return jax.linear_transpose(partial(convolve, x), kernel)(out_bar)[0]

    forms = {platform: partial(of, convolve) for platform, convolve in _DOUBLED.items()}
    return jax.lax.platform_dependent(out_bar, x, **forms)


_DOUBLED: dict[str, Callable[..., Array]] = {"cpu": _by_squares, "default": _of_doubled}
_convolution_doubled = bilinear(_conv_doubled, _gradient_of_x_doubled, _gradient_of_kernel_doubled)
