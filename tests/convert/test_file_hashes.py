"""Short hashes of adapters' files."""

import hashlib

import numpy as np
import pytest

from ldm_jax.convert.file_hashes import short_hash
from ldm_jax.formats.safetensors_file import write_safetensors


def test_of_bytes(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"some bytes")
    whole = hashlib.sha256(b"some bytes").hexdigest()
    assert short_hash(path, "embeddings") == short_hash(path, "lora") == whole[:12]
    assert short_hash(path, "hypernetwork") == whole[:10]
    path.write_bytes(b"other bytes, more")
    assert short_hash(path, "hypernetwork") != whole[:10]


@pytest.mark.parametrize("said", ["none", "../../etc", "ab"])
def test_of_adapters_without_their_header(tmp_path, said):
    arrays = {"a": np.arange(3, dtype=np.float32)}
    path = tmp_path / "a.safetensors"
    write_safetensors(path, arrays, {"sshs_model_hash": said})
    behind = hashlib.sha256(arrays["a"].tobytes()).hexdigest()
    assert short_hash(path, "lora") == behind[:12]
    assert short_hash(path, "embeddings") == hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def test_of_adapters_that_say_it(tmp_path):
    path = tmp_path / "a.safetensors"
    digest = "0123456789abcdef" * 4
    write_safetensors(path, {"a": np.zeros(1, np.float32)}, {"sshs_model_hash": digest})
    assert short_hash(path, "lora") == digest[:12]


@pytest.mark.parametrize(
    ("kind", "name"),
    [("lora", "adapter_model.safetensors"), ("control", "diffusion_pytorch_model.bin")],
)
def test_of_folders_by_their_weights(tmp_path, kind, name):
    (tmp_path / name).write_bytes(b"some bytes")
    assert short_hash(tmp_path, kind) == hashlib.sha256(b"some bytes").hexdigest()[:12]


def test_there_is_none(tmp_path):
    assert short_hash(tmp_path, "lora") is None and short_hash(tmp_path / "b", "lora") is None
