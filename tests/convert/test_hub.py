"""Names of the hub are told apart from paths, and nothing is fetched for anything else."""

import huggingface_hub
import pytest

from ldm_jax.convert import ConvertError, load
from ldm_jax.convert.hub import fetch


def test_a_name_becomes_the_folder_of_its_files(monkeypatch, tmp_path):
    asked = []

    def download(repo, revision, allow_patterns, ignore_patterns):
        asked.append((repo, revision))
        assert not any(pattern.endswith((".bin", ".ckpt")) for pattern in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch("hf:owner/some-model_1.5") == tmp_path
    fetch("hf:owner/name@fp16")
    assert asked == [("owner/some-model_1.5", None), ("owner/name", "fp16")]
    with pytest.raises(ConvertError, match="is not a model: it has neither"):
        load("hf:owner/name")


def test_what_is_no_name_and_what_cannot_be_reached(monkeypatch):
    def download(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(ConvertError, match="write hf:OWNER/NAME"):
        fetch("hf:../../etc")
    with pytest.raises(ConvertError, match="cannot fetch hf:owner/name: no network"):
        fetch("hf:owner/name")
    with pytest.raises(ConvertError, match="owner/name does not exist"):
        load("owner/name")
