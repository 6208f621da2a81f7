"""Object stores: what is read from them is what was put there, and what fails is named."""

import pickle
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import store_server

from ldm_jax import config as cfg
from ldm_jax.cli import shards_task, webdataset_task
from ldm_jax.core.files import (
    NotWritable,
    check_writable,
    damage,
    remove_folder,
    write_atomically,
    write_digests,
)
from ldm_jax.core.reading import FileFormatError, map_file, open_file, read_json
from ldm_jax.core.stores import NoStore, Unreachable, as_path, is_stored, there
from ldm_jax.data.folders import FolderSource
from ldm_jax.data.shards_source import ShardsSource
from ldm_jax.data.sources import open_source
from ldm_jax.data.tar_source import TarSource
from ldm_jax.training.report import report
from ldm_jax.web.model_list import ModelList

SIDES = (16, 16)


@pytest.fixture(scope="module")
def root(store):
    return as_path("gs://bucket/files")


def test_paths_of_this_machine_are_what_they_were():
    assert type(as_path("a/b")) is type(Path("a/b")) and as_path("a/b") == Path("a/b")
    assert not is_stored(as_path("hf:a/b"))


@pytest.mark.parametrize(
    "named, said",
    [
        ("ftp://host/a", "ftp:// cannot be opened; name a local path, or gs:// or s3://"),
        ("s3://bucket/a", "s3:// needs s3fs, which is not installed; pip install 'ldm_jax[s3]'"),
        ("gs://", "names no bucket"),
        ("gs://bucket/a/../b", "stores know no `..`; name the path without it"),
    ],
)
def test_what_cannot_be_opened_is_refused_by_name(named, said, monkeypatch):
    found = {"gcsfs": object()}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found.get(name))
    with pytest.raises(NoStore) as refused:
        as_path(named)
    assert named in str(refused.value) and said in str(refused.value)


def test_what_must_be_on_this_machine_is_refused_by_name(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    for source in (
        cfg.DigitScenes(data_dir="gs://bucket/a"),
        cfg.TFDS(path="gs://bucket/a", name="b"),
    ):
        with pytest.raises(NoStore, match="gs://bucket/a: .* must lie on this machine"):
            open_source(cfg.Data(source), "train")
    with pytest.raises(NoStore, match="models of the page must lie on this machine"):
        ModelList([as_path("gs://bucket/a")])
    with pytest.raises(cfg.ConfigError, match="ftp://host/run: ftp:// cannot be opened"):
        report(["ftp://host/run"])


def test_a_path_in_a_store_is_a_path(root):
    path = root / "a" / "b.json"
    assert isinstance(path, Path) and str(path) == "gs://bucket/files/a/b.json"
    assert path.parent.parent == root and path.suffix == ".json"
    assert pickle.loads(pickle.dumps(path)) == path == path.absolute()
    assert not there(path) and not root.is_dir()
    write_atomically(path, b'{"a": 1}')
    assert there(path) and path.is_file() and root.is_dir() and not root.is_file()
    assert [*root.iterdir()] == [root / "a"] and [*root.glob("*/*.json")] == [path]
    assert read_json(path) == {"a": 1} and path.stat().st_size == 8
    with open_file(path) as file:
        file.seek(-3, 2)
        assert file.read() == b" 1}"
    assert map_file(path)[:] == b'{"a": 1}'
    with pytest.raises(FileExistsError):
        path.create(b"")
    with pytest.raises(FileNotFoundError, match="there is no such bucket; make it: 'gs://nowhere/"):
        write_atomically(as_path("gs://nowhere/a"), b"")
    write_digests(root / "a")
    assert damage(root / "a", besides=["x"]) == []
    write_atomically(path, b'{"a": 2}')
    assert damage(root / "a") == [f"{path} has other contents than were written"]
    assert map_file(path)[:] == b'{"a": 2}'
    remove_folder(root)
    assert not root.exists()
    with pytest.raises(FileFormatError, match="gs://bucket/files/a/b.json: does not exist"):
        open_file(path)
    with pytest.raises(NotWritable, match="--out=gs://bucket/files: nothing but work directories"):
        check_writable(root, f"--out={root}")


def test_lost_requests_are_repeated_and_then_named(store, root, monkeypatch, caplog):
    path = root / "lost.json"
    write_atomically(path, b"{}")
    store.lose = {"GET /download": 1}
    assert read_json(path) == {} and store.lost
    # Of the seconds between attempts.
    monkeypatch.setattr("gcsfs.retry.min", lambda *seconds: 0, raising=False)
    store.lose = {"GET /download": 99}
    with pytest.raises(Unreachable, match=f"{path}: the store does not do cat_file: .*503"):
        read_json(path)
    assert caplog.text == ""
    store.lose = {}


def test_data_are_those_of_the_same_files_on_this_machine(root, pictures, tmp_path):
    tar, shards = tmp_path / "tars" / "a.tar", tmp_path / "shards"
    tar.parent.mkdir()
    with tarfile.open(tar, "w") as file:
        for number, path in enumerate(sorted(pictures.rglob("*.*"))[:12]):
            file.add(path, f"{number // 2}{path.suffix}")
    webdataset_task.main("webdataset", [f"--path={tar}"])
    words = [f"--data.source.path={pictures}", "--data.source.validation_fraction=0.2"]
    for out in (shards, root / "shards"):
        shards_task.main("shards", [f"--out={out}", "--shard_size=30", *words])
    for name, folder in (("pictures", pictures), ("tars", tar.parent)):
        store_server.upload(folder, root / name)
    for kind, settings, own, name in (
        (FolderSource, cfg.ImageFolder(validation_fraction=0.2), pictures, "pictures"),
        (TarSource, cfg.WebDataset(), tar.parent, "tars"),
        (ShardsSource, cfg.Shards(), shards, "shards"),
    ):
        here, stored = (
            kind(replace(settings, path=str(at)), SIDES, "train") for at in (own, root / name)
        )
        assert here.fingerprint == stored.fingerprint and len(here) == len(stored)
        for index in (0, len(here) - 1):
            one, other = here[index], stored[index]
            np.testing.assert_array_equal(one["image"], other["image"])
            assert one["caption"] == other["caption"] and one["name"] == other["name"]
