"""DoRA: a change whose magnitude is learnt apart from its direction (Liu 2024, equation 5)."""

from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ldm_jax.adapters import weights
from ldm_jax.adapters.ia3 import axis_misfit
from ldm_jax.adapters.kind import Factors, WeightKind, kind

EPSILON = float(np.finfo(np.float32).eps)
"""Added to norms, as LyCORIS does, so that a row of zeros is no division by zero."""


@kind
class DoRA:
    """W + ΔW' = V · m / ‖V‖ with V = W + ΔW, the norm taken of each output or of each input.

    The paper's norm is of each output's weights, which is what PEFT and LyCORIS from 3.2 on have;
    LyCORIS had that of each input's before. The shape of m tells which.
    """

    name: ClassVar[str] = "dora"
    magnitude: Factors
    """m: [out, 1(, 1, 1)], for each output, or [1, in(, 1, 1)], for each input."""
    change: WeightKind
    """ΔW, such as a `LoRA`."""

    def delta(self, weight: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """What is added to `weight`, in float32: all of the difference, so that a strength of 0
        leaves the weight as it is and changes of several adapters add up."""
        weight = weights.float32(weight)
        changed = weight + self.change.delta(weight)
        of_outputs = self.magnitude.shape[0] == weight.shape[0] and self.magnitude.shape[1] == 1
        # In training it is taken for a constant, which costs less and changes little (section 4.3).
        norm = jax.lax.stop_gradient(norms(changed, of_outputs=of_outputs) + EPSILON)
        factor = weights.float32(self.magnitude) / norm
        return changed * jnp.broadcast_to(factor, changed.shape) - weight

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a weight of `shape`; None if it can."""
        own = axis_misfit("dora_scale", self.magnitude, shape)
        return own or self.change.misfit(shape)


def norms(weight: Float[Array, "..."], *, of_outputs: bool) -> Float[Array, "..."]:
    """The norm of the weights of each output, or of each input, with axes of one for the others."""
    others = tuple(axis for axis in range(weight.ndim) if axis != (0 if of_outputs else 1))
    return jnp.sqrt(jnp.sum(jnp.square(weight), axis=others, keepdims=True))
