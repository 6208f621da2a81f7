"""Names of the Inception network in TensorFlow's frozen graph, classify_image_graph_def.pb."""

import re
from pathlib import Path

import numpy as np

from ldm_jax.adapters.weights import weight_of
from ldm_jax.formats.tensorflow_graph import read_constants

_STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Conv2d_3b_1x1", "Conv2d_4a_3x3")
_SEVENS = {"conv": "branch1x1", "tower": "branch7x7_{}", "tower_1": "branch7x7dbl_{}",
           "tower_2": "branch_pool"}  # fmt: skip
_FIVES = _SEVENS | {"tower": "branch5x5_{}", "tower_1": "branch3x3dbl_{}"}
_LAST = _SEVENS | {
    "tower": "branch3x3_{}", "tower_1": "branch3x3dbl_{}",
    "tower/mixed": "branch3x3_2{}", "tower_1/mixed": "branch3x3dbl_3{}",
}  # fmt: skip
_BLOCKS = {
    **dict.fromkeys(("5b", "5c", "5d"), _FIVES),
    "6a": {"conv": "branch3x3", "tower": "branch3x3dbl_{}"},
    **dict.fromkeys(("6b", "6c", "6d", "6e"), _SEVENS),
    "7a": {"tower": "branch3x3_{}", "tower_1": "branch7x7x3_{}"},
    **dict.fromkeys(("7b", "7c"), _LAST),
}
"""Blocks in their order, mixed, mixed_1, …; their branches, and what these are in torchvision's
names, with the place of a convolution in its branch."""
_LEAVES = {
    "conv2d_params": "conv.weight", "batchnorm/gamma": "bn.weight", "batchnorm/beta": "bn.bias",
    "batchnorm/moving_mean": "bn.running_mean", "batchnorm/moving_variance": "bn.running_var",
}  # fmt: skip
_CLASSIFIER = {"softmax/weights": "fc.weight", "softmax/biases": "fc.bias"}


def read_graph(path: Path) -> dict[str, np.ndarray]:
    """The weights in the graph under torchvision's names, in torch's layout. What is called like no
    weight, such as the numbers of the graph's own preprocessing, is left out; weights of other
    layers keep their names.

    Raises:
        FileFormatError: the file is missing, damaged or of another format.
    """
    return {
        torch_name(name): weight_of(array) if array.ndim in (2, 4) else array
        for name, array in read_constants(path).items()
        if name in _CLASSIFIER or name.endswith(tuple(_LEAVES))
    }


def torch_name(name: str) -> str:
    """A constant of the graph by its name in torchvision, or as it is called where it has none."""
    if name in _CLASSIFIER:
        return _CLASSIFIER[name]
    leaves = "|".join(_LEAVES)
    found = re.fullmatch(rf"(?:mixed(?:_(\d+))?/)?(?:(.*)/)?conv(?:_(\d+))?/({leaves})", name)
    if found is None:
        return name
    block, branch, place, leaf = found.groups()
    place = int(place or 0)
    if name.startswith("mixed"):
        unit = _unit(int(block or 0), branch or "conv", place)
    else:
        unit = _STEM[place] if branch is None and place < len(_STEM) else None
    return name if unit is None else f"{unit}.{_LEAVES[leaf]}"


def _unit(block: int, branch: str, place: int) -> str | None:
    if block >= len(_BLOCKS):
        return None
    name, branches = list(_BLOCKS.items())[block]
    if branch not in branches:
        return None
    # The halves of a convolution are a and b, the others are counted from 1.
    which = "ab"[place : place + 1] if branch.endswith("/mixed") else place + 1
    unit = branches[branch].format(which)
    return f"Mixed_{name}.{unit}" if place == 0 or "{}" in branches[branch] else None
