"""Convolutions over pixels, with the forms that are fast on each platform.

On a CPU, XLA computes the gradient of a kernel at a sixth of the speed of the convolution itself:
its "kernel" is then as large as the picture. One matmul of pixels and gradients for each place of
the kernel is the same sum. So the convolution is a primitive of its own, which says how it is
transposed; which form is used is chosen where a program is lowered.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float


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
        return _convolution.bind(x, kernel, **options)
    # XLA's convolution on CPU is 2 to 25 times slower than a matmul over so few pixels.
    return jax.lax.platform_dependent(
        x, kernel, cpu=partial(conv_as_matmul, **options), default=partial(_conv_xla, **options)
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


def _conv_xla(x: Array, kernel: Array, stride: int, padding: tuple[int, int]) -> Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), (padding, padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


# ------------------------------------------------------------------------------ the primitive


def _transposed_to_x(out_bar: Any, x: Any, kernel: Array, **options: Any) -> Any:
    """What a gradient of the output is for the input."""
    return jax.linear_transpose(lambda x: _conv_xla(x, kernel, **options), x.aval)(out_bar)[0]


def _transposed_to_kernel(out_bar: Any, x: Array, kernel: Any, **options: Any) -> Any:
    """What it is for the kernel."""

    def by_xla(x: Array, out_bar: Array) -> Array:
        conv = partial(_conv_xla, x, **options)
        return jax.linear_transpose(conv, kernel.aval)(out_bar)[0]

    def by_places(x: Array, out_bar: Array) -> Array:
        shifted = _shifted(x, kernel.aval.shape[:2], **options)
        places = [jnp.einsum("bhwc,bhwd->cd", pixels, out_bar) for pixels in shifted]
        return jnp.stack(places).reshape(kernel.aval.shape)

    return jax.lax.platform_dependent(x, out_bar, cpu=by_places, default=by_xla)


def _batched(arguments: Any, axes: Any, **options: Any) -> Any:
    return jax.vmap(partial(_conv_xla, **options), axes)(*arguments), 0


def _shape(x: Any, kernel: Any, **options: Any) -> Any:
    found = jax.eval_shape(
        partial(_conv_xla, **options),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        jax.ShapeDtypeStruct(kernel.shape, kernel.dtype),
    )
    return x.update(shape=found.shape, dtype=found.dtype)


_convolution = Primitive("conv2d")
_convolution.def_impl(jax.jit(_conv_xla, static_argnames=("stride", "padding")))
_convolution.def_abstract_eval(_shape)
mlir.register_lowering(_convolution, mlir.lower_fun(_conv_xla, multiple_results=False))
ad.defbilinear(_convolution, _transposed_to_x, _transposed_to_kernel)
batching.primitive_batchers[_convolution] = _batched
