"""(IA)³: outputs, or inputs, of a layer made larger or smaller (Liu 2022, section 3.3)."""

import math
from collections.abc import Sequence
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ldm_jax.adapters import weights
from ldm_jax.adapters.kind import Factors, kind


@kind
class IA3:
    """ΔW = W · scale, along outputs or inputs."""

    name: ClassVar[str] = "ia3"
    scale: Factors
    """[out, 1(, 1, 1)] or [1, in(, 1, 1)]; 0 is no change."""

    def delta(self, weight: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """What is added to `weight`, in float32."""
        return weights.float32(weight) * jnp.broadcast_to(weights.float32(self.scale), weight.shape)

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a weight of `shape`; None if it can."""
        return axis_misfit("weight", self.scale, shape)


def axis_misfit(name: str, scale: Factors, shape: Sequence[int]) -> str | None:
    """Why `scale` is no number for each output, or each input, of a weight of `shape`."""
    allowed = [(shape[0], *[1] * (len(shape) - 1)), (1, shape[1], *[1] * (len(shape) - 2))]
    if tuple(scale.shape) in allowed:
        return None
    count = math.prod(scale.shape)
    return (
        f"{name} is {list(scale.shape)}, {count} numbers, wanted one for each of {shape[0]} "
        f"outputs or {shape[1]} inputs: {' or '.join(str(list(one)) for one in allowed)}"
    )
