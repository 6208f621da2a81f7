"""Differences that are stored whole: of a weight, of a bias, of a norm's two vectors (LyCORIS)."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Array, Float

from ldm_jax.adapters import weights
from ldm_jax.adapters.kind import Factors, kind


@kind
class FullDifference:
    """ΔW itself."""

    name: ClassVar[str] = "full"
    diff: Factors
    """Of the weight's shape."""

    def delta(self, weight: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """What is added to `weight`, in float32."""
        return weights.placed(weights.float32(self.diff), weight.shape)

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a weight of `shape`; None if it can."""
        return weights.misfit("diff", self.diff.shape, shape)


@kind
class BiasDifference:
    """Added to a bias; it may stand beside any change of the weight."""

    name: ClassVar[str] = "bias"
    diff: Factors
    """[out]."""

    def bias_delta(self) -> Float[Array, "c"]:
        """What is added to the bias, in float32."""
        return weights.float32(self.diff)

    def bias_misfit(self, channels: int) -> str | None:
        """Why it cannot change a bias of so many channels; None if it can."""
        return _of_channels("diff_b", self.diff, channels)


@kind
class NormDifference:
    """Added to the scale and the bias of a group or layer normalisation."""

    name: ClassVar[str] = "norm"
    scale: Factors | None = None
    """[channels]."""
    bias: Factors | None = None
    """[channels]."""

    def delta(self, weight: Float[Array | np.ndarray, "c"]) -> Float[Array, "c"]:
        """What is added to the norm's scale, in float32."""
        return weights.float32(np.zeros(weight.shape) if self.scale is None else self.scale)

    def bias_delta(self) -> Float[Array, "c"] | None:
        """What is added to the bias, in float32; None for nothing."""
        return None if self.bias is None else weights.float32(self.bias)

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a scale of `shape`; None if it can."""
        if len(shape) != 1:
            return "w_norm is a change of a norm, which this is not"
        return None if self.scale is None else _of_channels("w_norm", self.scale, shape[0])

    def bias_misfit(self, channels: int) -> str | None:
        """Why it cannot change a bias of so many channels; None if it can."""
        return None if self.bias is None else _of_channels("b_norm", self.bias, channels)


def _of_channels(name: str, vector: Factors, channels: int) -> str | None:
    if tuple(vector.shape) == (channels,):
        return None
    return f"{name} is {list(vector.shape)}, wanted {[channels]}"
