"""All kinds of change by name, and as trees of arrays alone."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ldm_jax.adapters.dora import DoRA
from ldm_jax.adapters.ia3 import IA3
from ldm_jax.adapters.kind import Kind
from ldm_jax.adapters.loha import LoHa
from ldm_jax.adapters.lokr import LoKr
from ldm_jax.adapters.lora import LoRA
from ldm_jax.adapters.whole_differences import BiasDifference, FullDifference, NormDifference

KINDS: dict[str, Any] = {
    one.name: one
    for one in (LoRA, LoHa, LoKr, IA3, FullDifference, BiasDifference, NormDifference, DoRA)
}


def to_tree(kinds: tuple[Kind, ...]) -> dict[str, Any]:
    """`{name of the kind: {name of the array: array}}`; what is None is left out, and the change
    inside of a DoRA is such a tree itself."""
    return {one.name: _fields(one) for one in kinds}


def _fields(one: Kind) -> dict[str, Any]:
    own = {field.name: getattr(one, field.name) for field in fields(one)}
    return {
        name: to_tree((value,)) if isinstance(value, tuple(KINDS.values())) else value
        for name, value in own.items()
        if value is not None
    }


def from_tree(tree: Mapping[str, Mapping[str, Any]]) -> tuple[Kind, ...]:
    """Undoes `to_tree`."""
    return tuple(_made(name, arrays) for name, arrays in tree.items())


def _made(name: str, arrays: Mapping[str, Any]) -> Kind:
    inside = {
        n: from_tree(value)[0] if isinstance(value, Mapping) else value
        for n, value in arrays.items()
    }
    return KINDS[name](**inside)


def is_tree(tree: Any) -> bool:
    """Whether these are the kinds of one module, not a level of modules."""
    return isinstance(tree, Mapping) and bool(tree) and tree.keys() <= KINDS.keys()
