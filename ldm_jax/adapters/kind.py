"""What all kinds of change have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar, dataclass_transform, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Float

Factors = Any
"""An array, of NumPy or JAX, in whatever type it is stored in."""
Class = TypeVar("Class", bound=type)


@runtime_checkable
class WeightKind(Protocol):
    """Changes the weight of a module, as a function of its own arrays and of the weight."""

    name: ClassVar[str]

    def delta(self, weight: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
        """What is added to `weight`, [out, in(, height, width)] or [channels], in float32."""
        ...

    def misfit(self, shape: Sequence[int]) -> str | None:
        """Why it cannot change a weight of `shape`; None if it can."""
        ...


@runtime_checkable
class BiasKind(Protocol):
    """Changes the bias of a module."""

    name: ClassVar[str]

    def bias_delta(self) -> Float[Array, "c"] | None:
        """What is added to the bias, in float32; None for nothing."""
        ...

    def bias_misfit(self, channels: int) -> str | None:
        """Why it cannot change a bias of so many channels; None if it can."""
        ...


Kind = WeightKind | BiasKind


@dataclass_transform(frozen_default=True)
def kind(cls: Class) -> Class:
    """A frozen dataclass of arrays, which JAX takes as a tree."""
    made = dataclass(frozen=True, eq=False)(cls)
    names = [field.name for field in fields(made)]
    return jax.tree_util.register_dataclass(made, data_fields=names, meta_fields=[])


def mapped(one: Any, function: Callable[[Any], Any]) -> Any:
    """The kind with `function` of each of its arrays."""
    return jax.tree.map(function, one)
