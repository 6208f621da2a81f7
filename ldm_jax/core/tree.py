"""Trees of parameters by name: paths, covering masks, strict merging."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

LISTED = 10
"""How many paths of a kind an error names."""


class TreeError(ValueError):
    """Two trees that do not fit each other, or rules that do not fit a tree."""


def _listed(paths: Iterable[str]) -> str:
    paths = list(paths)
    more = f" and {len(paths) - LISTED} more" if len(paths) > LISTED else ""
    return ", ".join(paths[:LISTED]) + more


def _paths(tree: Any) -> tuple[list[str], list[Any], jax.tree_util.PyTreeDef]:
    """Paths and leaves in order, and the structure."""
    pairs, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in pairs]
    return paths, [leaf for _, leaf in pairs], structure


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves by path, the levels joined by `/`: `{"unet": {"conv_in": …}}` → `unet/conv_in`.

    Levels may be dicts, sequences, named tuples or dataclasses. None and empty containers have
    no leaves and leave no trace.

    Raises:
        TreeError: two leaves have the same path, because a key contains `/`.
    """
    paths, leaves, _ = _paths(tree)
    flat = dict(zip(paths, leaves, strict=True))
    if len(flat) < len(paths):
        twice = [path for path, count in Counter(paths).items() if count > 1]
        raise TreeError(f"several leaves have the same path: {_listed(twice)}")
    return flat


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Nested dicts from leaves by path; undoes `flatten` for trees of nested dicts.

    Raises:
        TreeError: a path is both a leaf and a level above another leaf.
    """
    tree: dict[str, Any] = {}
    levels = {id(tree)}
    for path, leaf in flat.items():
        *parents, last = path.split("/")
        node = tree
        for parent in parents:
            child = node.get(parent)
            if child is None:
                child = node[parent] = {}
                levels.add(id(child))
            elif id(child) not in levels:
                raise TreeError(f"{path} lies below a path that is itself a leaf")
            node = child
        if last in node:
            raise TreeError(f"{path} is both a leaf and a level above other leaves")
        node[last] = leaf
    return tree


def mask(tree: Any, rules: Iterable[tuple[str, Any]]) -> Any:
    """A tree of the same structure, each leaf replaced by the value of its rule.

    A rule is (regular expression, value); the first whose expression matches the whole path
    decides. So that nothing is forgotten, every leaf must have one.

    Raises:
        TreeError: names the leaves that no rule matches.
    """
    compiled = [(re.compile(pattern), value) for pattern, value in rules]
    paths, _, structure = _paths(tree)
    values, uncovered = [], []
    for path in paths:
        for pattern, value in compiled:
            if pattern.fullmatch(path):
                values.append(value)
                break
        else:
            uncovered.append(path)
    if uncovered:
        raise TreeError(
            f"no rule covers {_listed(uncovered)}; add one for each (rules match whole paths)"
        )
    return jax.tree_util.tree_unflatten(structure, values)


def split(tree: Any, rules: Iterable[tuple[str, bool]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Nested dicts as two: the leaves whose rule says True, and the rest; `join` undoes it.

    Raises:
        TreeError: names the leaves that no rule matches.
    """
    chosen = flatten(mask(tree, rules))
    flat = flatten(tree)
    return (
        unflatten({path: leaf for path, leaf in flat.items() if chosen[path]}),
        unflatten({path: leaf for path, leaf in flat.items() if not chosen[path]}),
    )


def join(a: Any, b: Any) -> dict[str, Any]:
    """Two trees of nested dicts, no leaf of which is in both, as one.

    Raises:
        TreeError: a path is in both.
    """
    first, second = flatten(a), flatten(b)
    twice = sorted(first.keys() & second.keys())
    if twice:
        raise TreeError(f"in both trees: {_listed(twice)}")
    return unflatten(first | second)


def merge(template: Any, loaded: Any) -> Any:
    """The leaves of `loaded` in the structure of `template`.

    Both may be arrays or anything else with `shape` and `dtype`. Paths, shapes and dtypes must
    be the same; nothing is cast, filled in or dropped.

    Raises:
        TreeError: names what is missing, unexpected, or of another shape or dtype.
    """
    paths, leaves, structure = _paths(template)
    found = flatten(loaded)
    missing = [path for path in paths if path not in found]
    unexpected = sorted(found.keys() - set(paths))
    different = [
        f"{path} (is {_kind(found[path])}, wanted {_kind(leaf)})"
        for path, leaf in zip(paths, leaves, strict=True)
        if path in found and _kind(found[path]) != _kind(leaf)
    ]
    problems = [
        f"{len(paths)} {what}: {_listed(paths)}"
        for what, paths in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of another shape or dtype", different),
        )
        if paths
    ]
    if problems:
        raise TreeError("; ".join(problems))
    return jax.tree_util.tree_unflatten(structure, [found[path] for path in paths])


def _kind(leaf: Any) -> str:
    leaf = leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else np.asarray(leaf)
    return f"{np.dtype(leaf.dtype).name}[{','.join(map(str, leaf.shape))}]"


def count(tree: Any) -> int:
    """Number of values in all leaves together; leaves need only a `shape`."""
    return sum(int(np.prod(np.shape(leaf), dtype=np.int64)) for leaf in jax.tree.leaves(tree))


def fingerprint(params: Mapping[str, Any]) -> str:
    """The SHA-256 of names, shapes and float32 values: the same from whatever files they came."""
    digest = hashlib.sha256()
    for path, value in sorted(flatten(params).items()):
        digest.update(f"{path} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value, "<f4").tobytes())
    return digest.hexdigest()
