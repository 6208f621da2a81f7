"""Adapters merged into the parameters of a model: W + Σ strength · ΔW."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ldm_jax.adapters.adapter import UNET, AdapterUse
from ldm_jax.adapters.kind import BiasKind, Kind, WeightKind
from ldm_jax.adapters.weights import kernel_of, weight_of

WEIGHTS = ("kernel", "scale", "embedding")
"""What a module's weight may be called."""


class MergeError(ValueError):
    """An adapter that changes what a model does not have."""


def merge(params: Mapping[str, Any], uses: Sequence[AdapterUse]) -> dict[str, Any]:
    """The parameters `{"unet", "conditioners"}` with adapters in them.

    What changes is computed in float32 and is a new NumPy array of that type. All else, with
    strengths of 0 everything, is the same array as before. `params` keeps the model as it was:
    there is no way, and no need, to take an adapter out again.

    Raises:
        MergeError: names a component or module that is not there.
    """
    components = {UNET: params.get(UNET, {}), **params.get("conditioners", {})}
    for component in sorted({name for use in uses for name in use.adapter.components}):
        found = [
            (use.adapter.components[component], use.strength(component))
            for use in uses
            if component in use.adapter.components and use.strength(component) != 0
        ]
        if found and component not in components:
            raise MergeError(f"the model has no {component}, which the adapter changes")
        if found:
            components[component] = _merged(component, components[component], found)
    merged = dict(params)
    if UNET in params:
        merged[UNET] = components[UNET]
    if "conditioners" in params:
        merged["conditioners"] = {name: components[name] for name in params["conditioners"]}
    return merged


def _merged(component: str, params: Mapping[str, Any], found: Sequence[tuple]) -> dict[str, Any]:
    """A component's parameters, with changes of each module and their strength."""
    merged = _copied(params)
    for path in sorted({path for modules, _ in found for path in modules}):
        own = _own(component, merged, path)
        total: dict[str, np.ndarray] = {}
        for modules, strength in found:
            for leaf, change in deltas(modules.get(path, ()), own).items():
                part = np.float32(strength) * np.asarray(change)
                total[leaf] = total[leaf] + part if leaf in total else part
        own.update({leaf: np.asarray(own[leaf], np.float32) + c for leaf, c in total.items()})
    return merged


def _copied(tree: Any) -> Any:
    """The same leaves in new dicts."""
    return {n: _copied(t) for n, t in tree.items()} if isinstance(tree, Mapping) else tree


def _own(component: str, params: dict[str, Any], path: str) -> dict[str, Any]:
    node: Any = params
    for level in path.split("/"):
        node = node.get(level) if isinstance(node, Mapping) else None
        if node is None:
            raise MergeError(f"the model's {component} has no {path}, which the adapter changes")
    return node


def deltas(kinds: Iterable[Kind], own: Mapping[str, Any]) -> dict[str, Array]:
    """What `kinds` together add to each of a module's `own` parameters, in their layout and in
    float32; parameters that do not change are left out."""
    total: dict[str, Array] = {}

    def add(leaf: str, change: Array) -> None:
        total[leaf] = total[leaf] + change if leaf in total else change

    name = next(name for name in WEIGHTS if name in own)
    weight = weight_of(own[name]) if name == "kernel" else own[name]
    for one in kinds:
        if isinstance(one, WeightKind):
            change = one.delta(jnp.asarray(weight, jnp.float32))
            add(name, kernel_of(change) if name == "kernel" else change)
        if isinstance(one, BiasKind):
            change = one.bias_delta()
            if change is not None:
                add("bias", change)
    return total
