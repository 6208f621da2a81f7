"""Weights as the formulas of adapters have them: [out, in] or [out, in, height, width], as torch.

Here a dense layer's kernel is [in, out] and a convolution's [height, width, in, out].
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

KERNEL_AXES = {2: (1, 0), 4: (2, 3, 1, 0)}
"""Axis i of a kernel of so many axes is axis `KERNEL_AXES[…][i]` of the weight; of every other
parameter the axes are the same."""


def weight_of(kernel: Float[Array | np.ndarray, "..."]) -> Array | np.ndarray:
    """A kernel with its axes turned as torch has them."""
    return kernel.transpose(np.argsort(KERNEL_AXES[kernel.ndim]).tolist())


def kernel_of(weight: Float[Array | np.ndarray, "..."]) -> Array | np.ndarray:
    """Undoes `weight_of`."""
    return weight.transpose(KERNEL_AXES[weight.ndim])


def float32(array: ArrayLike) -> Float[Array, "..."]:
    """In the type that adapters are computed in."""
    return jnp.asarray(array, jnp.float32)


def product(*factors: Float[Array | np.ndarray, "_ _"]) -> Float[Array, "_ _"]:
    """Matrices multiplied in float32, on every platform."""
    first, *others = map(float32, factors)
    for other in others:
        first = jnp.matmul(first, other, precision=jax.lax.Precision.HIGHEST)
    return first


def tucker(
    core: Float[Array | np.ndarray, "m n h w"],
    left: Float[Array | np.ndarray, "m i"],
    right: Float[Array | np.ndarray, "n j"],
) -> Float[Array, "i j h w"]:
    """Σ left[m, i] core[m, n, ··] right[n, j]: Tucker's decomposition of a convolution."""
    return jnp.einsum(
        "mi,mnhw,nj->ijhw", float32(left), float32(core), float32(right),
        precision=jax.lax.Precision.HIGHEST,
    )  # fmt: skip


def placed(change: Float[Array, "..."], shape: Sequence[int]) -> Float[Array, "..."]:
    """`change` in the `shape` of the weight that it changes, one row of values for each output.

    It may have fewer inputs than the weight: the others, which models that are shown a picture
    have behind those of the latents, do not change.
    """
    out, width, *sides = shape
    own = change.size // (out * math.prod(sides))
    change = change.reshape(out, own, *sides)
    return jnp.pad(change, [(0, 0), (0, width - own), *[(0, 0)] * len(sides)])


def flat(factor: Float[Array | np.ndarray, "..."]) -> Array | np.ndarray:
    """A matrix: the first axis, and all others as one."""
    return factor.reshape(factor.shape[0], -1)


def scaled(alpha: ArrayLike | None, rank: int, change: Float[Array, "..."]) -> Float[Array, "..."]:
    """α/r times `change`; without alpha, α is r."""
    return change if alpha is None else change * (float32(alpha) / rank)


def misfit(what: str, found: Sequence[int], wanted: Sequence[int]) -> str | None:
    """A sentence about a factor of another shape than is wanted; None if it has it. Axes of one
    element at the end do not count."""
    one, other = (_squeezed(shape) for shape in (found, wanted))
    return None if one == other else f"{what} is {list(found)}, wanted {list(wanted)}"


def _squeezed(shape: Sequence[int]) -> list[int]:
    shape = [*shape]
    while len(shape) > 2 and shape[-1] == 1:
        shape.pop()
    return shape
