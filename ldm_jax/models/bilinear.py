"""Products of two arrays that say themselves how they are differentiated.

XLA derives the gradients of a convolution or a matmul correctly, but on a CPU some of the forms
that it arrives at take up to seven times as long as others that are the same sum. A primitive says
which form it is to be, and leaves `jvp`, `vmap`, remat and export as they are.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def bilinear(
    product: Callable[..., jax.Array],
    to_left: Callable[..., jax.Array],
    to_right: Callable[..., jax.Array],
) -> Callable[..., jax.Array]:
    """`product(left, right, **options)`, linear in either, with gradients of these forms.

    `to_left(out_bar, left, right, **options)` computes what a gradient of the output is for `left`,
    of which it is given the shape and dtype alone; `to_right` the same for `right`.
    """
    options = list(inspect.signature(product).parameters)[2:]

    def shape(left: Any, right: Any, **options: Any) -> Any:
        arrays = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (left, right))
        found = jax.eval_shape(functools.partial(product, **options), *arrays)
        return left.update(shape=found.shape, dtype=found.dtype)

    def batched(arguments: Any, axes: Any, **options: Any) -> Any:
        return jax.vmap(functools.partial(product, **options), axes)(*arguments), 0

    primitive = Primitive(product.__name__.strip("_"))
    primitive.product = product  # by which `core.flops` counts it
    primitive.def_impl(jax.jit(product, static_argnames=options))
    primitive.def_abstract_eval(shape)
    mlir.register_lowering(primitive, mlir.lower_fun(product, multiple_results=False))
    batching.primitive_batchers[primitive] = batched
    ad.defbilinear(
        primitive,
        lambda bar, left, right, **options: to_left(bar, left.aval, right, **options),
        lambda bar, left, right, **options: to_right(bar, left, right.aval, **options),
    )
    return primitive.bind
