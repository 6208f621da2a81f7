"""Weights of networks of features are found, read strictly, and told by their file."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.convert import vgg_weights
from ldm_jax.convert.feature_weights import named_file, read_weights
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.vgg_weights import VARIABLE, read_vgg16
from ldm_jax.formats.safetensors_file import write_safetensors

SHAPES = {"classifier": {"3": {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}}}
WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "vgg16.safetensors"
    last = {"classifier.6.weight": np.zeros((4, 3), np.float32)}
    write_safetensors(path, {"classifier.3.weight": WEIGHT} | last)
    return path


def test_names(monkeypatch, file):
    monkeypatch.setenv("A_VARIABLE", "elsewhere")
    assert named_file(file, "--one", "A_VARIABLE", "weights are needed") == file
    assert str(named_file(None, "--one", "A_VARIABLE", "weights are needed")) == "elsewhere"
    monkeypatch.delenv("A_VARIABLE")
    with pytest.raises(
        ConvertError, match="weights are needed; name it with --one=FILE, or set .* A_VARIABLE"
    ):
        named_file(None, "--one", "A_VARIABLE", "weights are needed")


def test_values_and_digest(file):
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    ignore = [(r"classifier\.6\.weight", "not used")]
    found = read_weights(file, SHAPES, ignore, digest[:8])
    np.testing.assert_array_equal(found.params["classifier"]["3"]["kernel"], WEIGHT.T)
    assert found.sha256 == digest and found.known
    assert not read_weights(file, SHAPES, ignore, "0" * 8).known
    with pytest.raises(ConvertError, match="1 unexpected: 'classifier.6.weight'"):
        read_weights(file, SHAPES, (), digest)
    write_safetensors(file, {"classifier.3.weight": np.full((3, 2), np.inf, np.float32)})
    with pytest.raises(ConvertError, match="classifier/3/kernel has values that are not finite"):
        read_weights(file, SHAPES, (), digest)


def test_vgg16s_file(file, monkeypatch):
    """Its last layer is not used; `tests/parity` compares the values of a whole network."""
    monkeypatch.setattr(vgg_weights, "_shapes", lambda: SHAPES)
    monkeypatch.setenv(VARIABLE, str(file))
    np.testing.assert_array_equal(read_vgg16().params["classifier"]["3"]["kernel"], WEIGHT.T)
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(ConvertError, match="vgg16-397923af.pth.*LDM_JAX_VGG16"):
        read_vgg16()
