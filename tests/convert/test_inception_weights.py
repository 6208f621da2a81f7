"""The weights of Inception are read strictly, and the file is told. Values: in `tests/parity`."""

import hashlib

import numpy as np
import pytest

from ldm_jax.convert import inception_weights
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.inception_weights import VARIABLE, _shapes, read_inception
from ldm_jax.convert.state_dicts import leaves
from ldm_jax.core import tree
from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.safetensors_file import write_safetensors


@pytest.fixture(scope="module")
def tensors():
    """Numbers from 0 to 1 in torch's names and layout, in half the memory."""
    random = np.random.default_rng(0)
    return {
        leaf.name: random.random(leaf.torch_shape, np.float32).astype(np.float16)
        for leaf in leaves(_shapes())
    }


@pytest.fixture(scope="module")
def file(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    counters = {"Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros((), np.int64)}
    write_safetensors(path, tensors | counters)
    return path


def test_values(file, tensors):
    found = read_inception(file)
    flat = tree.flatten(found.params)
    kernel = tensors["Mixed_6b.branch7x7_2.conv.weight"].transpose(2, 3, 1, 0).astype(np.float32)
    np.testing.assert_array_equal(flat["Mixed_6b/branch7x7_2/conv/kernel"], kernel)
    statistic = "Mixed_5b.branch1x1.bn.running_var"
    np.testing.assert_array_equal(flat[statistic.replace(".", "/")], tensors[statistic])
    assert flat["fc/kernel"].shape == (2048, 1008)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert not found.known


def test_the_known_file_is_told(file, monkeypatch):
    monkeypatch.setattr(inception_weights, "KNOWN", read_inception(file).sha256)
    assert read_inception(file).known


def test_the_environment_names_the_file(file, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(file))
    assert read_inception().sha256 == read_inception(file).sha256
    monkeypatch.setenv(VARIABLE, "")
    with pytest.raises(ConvertError, match="pt_inception-2015-12-05-6726825d.pth.*LDM_JAX_INC"):
        read_inception()
    with pytest.raises(FileFormatError, match="does not exist"):
        read_inception(file.with_name("none"))


@pytest.mark.parametrize(("change", "problem"), [
    ({"fc.bias": None}, "1 missing: fc.bias"),
    ({"AuxLogits.fc.bias": np.zeros(3, np.float32)}, "1 unexpected: 'AuxLogits.fc.bias'"),
    ({"fc.bias": np.zeros(1000, np.float32)}, r"another shape: 'fc.bias' \(is \[1000\]"),
    ({"fc.bias": np.full(1008, np.nan, np.float32)}, "fc/bias has values that are not finite"),
    ({"Mixed_7c.branch_pool.bn.running_var": np.full(192, -1, np.float32)}, "negative variances"),
])  # fmt: skip
def test_what_does_not_fit(change, problem, tensors, tmp_path):
    changed = {name: x for name, x in (tensors | change).items() if x is not None}
    write_safetensors(tmp_path / "changed", changed)
    with pytest.raises(ConvertError, match=problem):
        read_inception(tmp_path / "changed")
