"""Networks on a torus: pictures whose left edge continues at the right, and top at the bottom."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array

from ldm_jax.models.layers import Conv


@contextmanager
def tileable() -> Iterator[None]:
    """Inside, every `Conv` sees its input continued periodically instead of by zeros.

    Enter it inside the function that is traced: a program that `jit` compiled outside is reused
    as it is. Parameters are the same. U-Net and decoder then commute with circular shifts by
    multiples of their factor.
    """
    with nn.intercept_methods(_wrap):
        yield


def _wrap(call: Callable[..., Any], args: tuple, kwargs: dict, context: Any) -> Any:
    conv = context.module
    if not isinstance(conv, Conv) or context.method_name != "__call__" or not any(conv.padding):
        return call(*args, **kwargs)
    # Continue the input by whole strides, and cut off what the zeros beyond have reached.
    strides = -(-max(conv.padding) // conv.stride)
    seen, border = (1, 2) if conv.doubled else (strides * conv.stride, strides)
    (x,), around = args, (seen, seen)
    y: Array = call(jnp.pad(x, ((0, 0), around, around, (0, 0)), mode="wrap"), **kwargs)
    return y[:, border:-border, border:-border]
