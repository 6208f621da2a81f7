"""The corpus' files of hypernetworks: one pair of networks of width 6."""

from pathlib import Path
from typing import Any

import numpy as np
from corpus import Case, Make, safetensors, torch_file
from corpus import saved as written

from ldm_jax import config as cfg
from ldm_jax.adapters.hypernetwork import shapes
from ldm_jax.convert.hypernetworks.hypernetwork_files import read_hypernetwork
from ldm_jax.core import tree

FORM = cfg.Hypernetwork((6,), (1.0, 2.0, 1.0), "relu", True)


def _nets(dtype: Any = np.float32) -> tuple[dict[str, np.ndarray], ...]:
    random = np.random.default_rng(0)
    return tuple(
        {f"linear.{n}.{name}": random.standard_normal(shape).astype(dtype)
         for n, name, shape in shapes(FORM, 6)}
        for _ in "kv"
    )  # fmt: skip


K, V = _nets()


def read(path: Path) -> dict[str, Any]:
    found = read_hypernetwork(path)
    arrays = {key: np.asarray(array, np.float32) for key, array in tree.flatten(found.nets).items()}
    return arrays | {"form": str(found.form)}


def answer(dtype: Any = np.float32) -> dict[str, Any]:
    arrays = {
        f"6/{side}/{key.removeprefix('linear.').replace('.', '/')}": array.astype(np.float32)
        for side, net in zip("kv", _nets(dtype), strict=True) for key, array in net.items()
    }  # fmt: skip
    return arrays | {"form": str(FORM)}


def clean() -> dict[str, Any]:
    return answer()


def saved(k: Any = K, v: Any = V, **more: Any) -> Make:
    value = {"layer_structure": [1, 2, 1], "activation_func": "relu", "is_layer_norm": True,
             "activate_output": True, "step": 7, "name": "mine"} | more  # fmt: skip
    return written({6: (k, v)} | value, "mine.pt")


def with_k(change: Any) -> Make:
    """With the first network's first weight changed."""
    return saved(K | {"linear.0.weight": change(K["linear.0.weight"])})


def old(net: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = {"linear.0": "linear1", "linear.1": "linear2"}
    return {f"{names[key[:8]]}{key[8:]}": array for key, array in net.items() if key[:8] in names}


DAMAGED = "is damaged: of layer_structure, activation_func, .* one cannot be read"
CASES = {
    "clean": Case(saved()),
    "reversed": Case(saved(dict(reversed(K.items())), dict(reversed(V.items())))),
    "half": Case(saved(*_nets(np.float16)), expected=lambda: answer(np.float16)),
    "odd name and step": Case(saved(name=3, step="many")),
    "upper case": Case(saved(activation_func="ReLU")),
    "not a number": Case(with_k(lambda a: a * np.nan), "linear.0.weight has values that are no fi"),
    "whole numbers": Case(with_k(np.int64), "linear.0.weight is of int64, a type that weights do"),
    "turned": Case(with_k(np.transpose), r"linear.0.weight is \[6, 12\], wanted \[12, 6\]"),
    "an axis more": Case(with_k(lambda a: a[..., None]), r"is \[12, 6, 1\], wanted \[12, 6\]"),
    "no weight": Case(saved({n: a for n, a in K.items() if n != "linear.0.weight"}), "is missing,"),
    "a tensor more": Case(saved(K | {"linear.9.weight": V["linear.0.bias"]}), "is unexpected; by"),
    "two spellings": Case(
        saved(K | {"linear1.weight": K["linear.0.weight"]}), "weight is there twice, in an old an"),
    "another structure": Case(saved(layer_structure=[1, 4, 1]), r"is \[12, 6\], wanted \[24, 6\]"),
    "huge structure": Case(saved(layer_structure=[1, 1e30, 1]), "linear.0.weight is .*, wanted"),
    "negative structure": Case(saved(layer_structure=[1, -2, 1]), "layer_structure is"),
    "structure of text": Case(saved(layer_structure="abc"), DAMAGED),
    "structure of nothing": Case(saved(layer_structure=3), DAMAGED),
    "structure as a tensor": Case(saved(layer_structure=V["linear.0.bias"]), DAMAGED),
    "activation as a number": Case(saved(activation_func=3), DAMAGED),
    "unknown activation": Case(saved(activation_func="prelu"), "func is 'prelu'; those that"),
    "other dropout": Case(saved(dropout_structure=[0, 0.3]), r"dropout is .*; it must be \(\) or"),
    "one network": Case(written({6: (K,)}), "6 must be a pair of networks, of keys and of values"),
    "no network": Case(saved(None), "k of 6 is no network: a dict of tensors is wanted"),
    "width as text": Case(written({"6": (K, V)}), "is no hypernetwork: such a file has pairs of n"),
    "width 0": Case(written({0: ({}, {})}), r"widths is \(0,\)"),
    "other names": Case(torch_file({"a": V["linear.0.bias"]}), "is no hypernetwork: such a file h"),
    "safetensors": Case(safetensors({"a": V["linear.0.bias"]}), "is no hypernetwork: such a file"),
}  # fmt: skip
