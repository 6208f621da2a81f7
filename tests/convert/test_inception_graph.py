"""TensorFlow's graph holds all of the network under its own names; these are torchvision's."""

import numpy as np
import pytest
import tensorflow_graphs

from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.inception_graph import torch_name
from ldm_jax.convert.inception_weights import _shapes, read_inception
from ldm_jax.core import tree

UNITS = {
    "conv": "Conv2d_1a_3x3", "conv_3": "Conv2d_3b_1x1",
    "mixed/conv": "Mixed_5b.branch1x1", "mixed/tower/conv_1": "Mixed_5b.branch5x5_2",
    "mixed_1/tower_1/conv": "Mixed_5c.branch3x3dbl_1",
    "mixed_2/tower_2/conv": "Mixed_5d.branch_pool",
    "mixed_3/conv": "Mixed_6a.branch3x3", "mixed_3/tower/conv_2": "Mixed_6a.branch3x3dbl_3",
    "mixed_6/conv": "Mixed_6d.branch1x1", "mixed_7/tower_1/conv_4": "Mixed_6e.branch7x7dbl_5",
    "mixed_8/tower/conv_1": "Mixed_7a.branch3x3_2",
    "mixed_8/tower_1/conv": "Mixed_7a.branch7x7x3_1",
    "mixed_9/tower/mixed/conv": "Mixed_7b.branch3x3_2a",
    "mixed_10/tower_1/mixed/conv_1": "Mixed_7c.branch3x3dbl_3b",
    "mixed_10/tower_1/conv_1": "Mixed_7c.branch3x3dbl_2",
}  # fmt: skip
COUNTS = {"mixed": (1, 2, 3, 1), "mixed_3": (1, 3), "mixed_4": (1, 3, 5, 1), "mixed_8": (0, 2, 4),
          "mixed_9": (1, 1, 2, 1)}  # fmt: skip
"""Convolutions of the block itself and of each of its towers."""
LEAVES = ("conv2d_params", "batchnorm/gamma", "batchnorm/beta", "batchnorm/moving_mean",
          "batchnorm/moving_variance")  # fmt: skip


def units():
    """The names of all convolutions of the graph."""

    def counted(scope, count):
        return [f"{scope}conv{f'_{i}' if i else ''}" for i in range(count)]

    found = counted("", 5)
    for block in range(11):
        name = f"mixed_{block}" if block else "mixed"
        like = {0: "mixed", 1: "mixed", 2: "mixed", 3: "mixed_3", 8: "mixed_8"}
        counts = COUNTS[like.get(block, "mixed_9" if block > 8 else "mixed_4")]
        for tower, count in enumerate(counts):
            scope = ("", "tower/", "tower_1/", "tower_2/")[tower]
            found += counted(f"{name}/{scope}", count)
            if block > 8 and tower in (1, 2):
                found += counted(f"{name}/{scope}mixed/", 2)
    return found


@pytest.mark.parametrize("unit", UNITS)
def test_names(unit):
    assert unit in units()
    assert torch_name(f"{unit}/conv2d_params") == f"{UNITS[unit]}.conv.weight"
    assert torch_name(f"{unit}/batchnorm/moving_variance") == f"{UNITS[unit]}.bn.running_var"


@pytest.mark.parametrize("name", [
    "conv_5/conv2d_params", "mixed_11/conv/conv2d_params", "mixed/conv_1/conv2d_params",
    "mixed_3/tower_1/conv/conv2d_params", "tower/conv/conv2d_params", "conv/other", "pool_3",
])  # fmt: skip
def test_other_names_stay(name):
    assert torch_name(name) == name


@pytest.fixture(scope="module")
def constants():
    """What the graph holds, of the shapes that the network has, in TensorFlow's layout."""
    flat, random = tree.flatten(_shapes()), np.random.default_rng(0)
    names = [f"{unit}/{leaf}" for unit in units() for leaf in LEAVES]
    found = {}
    for name in [*names, "softmax/weights", "softmax/biases"]:
        path = torch_name(name).replace(".", "/")
        path = path.replace("conv/weight", "conv/kernel").replace("bn/weight", "bn/scale")
        path = path.replace("fc/weight", "fc/kernel")
        found[name] = random.random(flat[path].shape, np.float32)
    return found | {"Sub/y": np.full((), 128, np.float32), "ExpandDims/dim": np.zeros(1, np.int32)}


def test_the_whole_network(constants, tmp_path):
    path = tmp_path / "classify_image_graph_def.pb"
    path.write_bytes(tensorflow_graphs.graph(constants))
    found = read_inception(path)
    flat = tree.flatten(found.params)
    assert len(flat) == len(constants) - 2 == 94 * 5 + 2 and not found.known
    kernel = constants["mixed_9/tower/mixed/conv_1/conv2d_params"]
    np.testing.assert_array_equal(flat["Mixed_7b/branch3x3_2b/conv/kernel"], kernel)
    np.testing.assert_array_equal(flat["fc/kernel"], constants["softmax/weights"])
    statistics = constants["conv_4/batchnorm/moving_mean"]
    np.testing.assert_array_equal(flat["Conv2d_4a_3x3/bn/running_mean"], statistics)


def test_another_graph(constants, tmp_path):
    path = tmp_path / "graph.pb"
    some = {name: constants[name] for name in ("softmax/biases", "Sub/y")}
    other = {"mixed_11/conv/batchnorm/beta": np.ones(3, np.float32)}
    path.write_bytes(tensorflow_graphs.graph(some | other))
    with pytest.raises(ConvertError, match="471 missing.*1 unexpected: 'mixed_11/conv/batchnorm/b"):
        read_inception(path)
