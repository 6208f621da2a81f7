"""Per-example numbers, and formulas both on the host (float64) and in programs (float32)."""

from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from ldm_jax.core.typing import Scales, Times


def numbers(t: Times) -> ModuleType:
    """jax.numpy for JAX's arrays, NumPy for what is on the host."""
    return jnp if isinstance(t, jax.Array) else np


def as_float(t: Times) -> Scales:
    """float32 in a program, float64 on the host."""
    return t.astype(jnp.float32) if isinstance(t, jax.Array) else np.asarray(t, np.float64)[()]


def per_example(values: Shaped[Array, "b"], ndim: int) -> Shaped[Array, "b ..."]:
    """[b] as [b, 1, ..., 1] of `ndim` axes."""
    return values.reshape(values.shape + (1,) * (ndim - 1))
