"""Tar files in WebDataset's layout: indexed, read where they are, and refused where they are not
what was indexed."""

import io
import json
import os
import pickle
import tarfile

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.cli import webdataset as command
from ldm_jax.data import tar_shards
from ldm_jax.data.sources import DataError, has_validation, open_source
from ldm_jax.data.tar_shards import index_tar, tar_files


def _picture(number, kind="PNG"):
    written = io.BytesIO()
    Image.new("RGB", (9, 6), (number, 0, 0)).save(written, kind)
    return written.getvalue()


def _tar(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def _example(number, key=None, **more):
    key = key or f"{number:04d}"
    members = {
        "png": _picture(number), "txt": f" é {number}\n".encode(), "cls": str(number % 3).encode(),
        "json": json.dumps({"caption": f"j {number}", "width": 9, "kind": number % 2}).encode(),
    } | more  # fmt: skip
    return [(f"{key}.{suffix}", content) for suffix, content in members.items() if content]


@pytest.fixture
def tars(tmp_path):
    for shard in range(3):
        members = [("__meta__", b"x"), ("readme.md", b"y")] if shard == 0 else []
        members = members[:1]
        for number in range(shard * 4, shard * 4 + 4):
            members += _example(number, f"dir.x/{'long' * 40 * (number == 5)}{number}")
        _tar(tmp_path / "tars" / f"train-{shard:03d}.tar", members)
    return str(tmp_path / "tars" / "train-{000..002}.tar")


def _index(path, *words):
    return command.main([f"--path={path}", *words])


def _open(path, split="train", **settings):
    return open_source(cfg.Data(cfg.WebDataset(path=path, **settings), 8), split)


def test_members_are_read_where_they_are(tars):
    assert _index(tars) == 0
    source = _open(tars)
    assert len(source) == 12 and source.class_names == ("0", "1", "2") and source.has_captions
    for row in (11, 0, 5, 4):
        example = source[row]
        np.testing.assert_array_equal(example["image"], np.full((6, 9, 3), (row, 0, 0)))
        assert (example["caption"], example["label"]) == (f"é {row}", row % 3)
    assert source[7]["name"] == "train-001.tar/dir.x/7.png"
    assert [*source.labels()] == [row % 3 for row in range(12)]
    assert pickle.loads(pickle.dumps(source))[3]["name"] == source[3]["name"]
    named = _open(tars, caption="json.caption", label="json.kind", class_names=("a", "b"))
    assert (named[5]["caption"], named[5]["label"]) == ("j 5", 1)
    assert named.fingerprint != source.fingerprint
    with pytest.raises(DataError, match=r"7.png has no text 'width' in its .json"):
        _open(tars, caption="json.width")[7]


def test_opening_reads_no_tar_file(tars, monkeypatch):
    assert _index(tars) == 0
    opened = []

    def opening(path):
        opened.append(path.name)
        return real(path)

    real = tar_shards.open_file
    monkeypatch.setattr(tar_shards, "open_file", opening)
    source = _open(tars)
    assert len(source) == 12 and not opened
    source[6]
    source[7]
    assert opened == ["train-001.tar"]


def test_indexing_goes_on_where_it_was_interrupted(tars, tmp_path, capsys):
    index = f"--index={tmp_path / 'index'}"
    assert _index(tars, index, "--num_processes=2", "--process_id=0") == 0
    assert "other processes have 1 of 3 files to index" in capsys.readouterr().out
    with pytest.raises(DataError, match="does not exist; index the files"):
        _open(tars, index=str(tmp_path / "index"))
    first = tmp_path / "index" / "train-000.tar.npy"
    before = first.stat().st_mtime_ns
    assert _index(tars, index) == 0
    assert "12 examples in 3 tar files" in capsys.readouterr().out
    assert first.stat().st_mtime_ns == before
    assert len(_open(tars, index=str(tmp_path / "index"))) == 12


def test_validation_has_tar_files_of_its_own(tars, tmp_path):
    other = str(_tar(tmp_path / "tars" / "valid.tar", _example(20) + _example(22)))
    assert _index(tars, f"--validation_path={other}") == 0
    assert len(_open(tars)) == 12 and len(_open(tars, "validation", validation_path=other)) == 2
    apart = str(_tar(tmp_path / "apart" / "train-000.tar", _example(20)))
    words = [f"--validation_path={apart}", f"--index={tmp_path / 'index'}"]
    assert _index(tars, *words) == 0
    settings = {"validation_path": apart, "index": str(tmp_path / "index")}
    assert len(_open(tars, "validation", **settings)) == 1 and len(_open(tars, **settings)) == 12
    with pytest.raises(DataError, match="no validation split; name some with"):
        _open(tars, "validation")
    assert not has_validation(cfg.WebDataset(path=tars))


def test_names_of_tar_files(tmp_path):
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in tar_files(str(tmp_path))] == ["a.tar", "b.tar"]
    names = [path.name for path in tar_files("x/a{1..2}-{08..10}.tar")]
    assert names == ["a1-08.tar", "a1-09.tar", "a1-10.tar", "a2-08.tar", "a2-09.tar", "a2-10.tar"]
    for path, message in (
        ("", "data.source.path is missing"),
        ("x/{a,b}.tar", "only ranges such as"),
        ("x/{5..2}.tar", "names no file"),
    ):
        with pytest.raises(DataError, match=message):
            tar_files(path)


def test_tar_files_that_cannot_be_indexed(tmp_path):
    path = tmp_path / "a.tar"
    for members, message in (
        ([("a.txt", b"x")], "a.tar: a has no picture"),
        (_example(1, png=b"") + [("0001.png", b"")], "a.tar: 0001 has no picture"),
        (_example(1) + [("0001.jpg", _picture(1))], "0001 has more than one picture"),
        (_example(1) + [("0001.txt", b"x")], "0001 has txt twice"),
        (_example(1, cls=b"cat"), "0001.cls holds b'cat', which is not the number of a class"),
    ):
        _tar(path, members)
        with pytest.raises(ValueError, match=message):
            index_tar(path, tmp_path / "index")
    whole = _tar(path, _example(1) + _example(2)).read_bytes()
    end = len(whole.rstrip(b"\0"))
    for cut in (end // 512 * 512 + 512, end - 3, 700, 3, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="a.tar: is cut short"):
            index_tar(path, tmp_path / "index")
    path.write_bytes(_picture(1) * 10)
    with pytest.raises(ValueError, match="a.tar: is cut short, or no tar file"):
        index_tar(path, tmp_path / "index")


def test_tar_files_that_are_not_what_was_indexed(tars, tmp_path, capsys):
    assert _index(tars) == 0
    assert _index(tars, "--verify") == 0
    assert "train: all 3 shards are as they were written" in capsys.readouterr().out
    path = tmp_path / "tars/train-001.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:-512])
    with pytest.raises(DataError, match=r"train-001.tar has \d+ bytes instead of \d+: it is not"):
        _open(tars)[5]
    # One of the same size, with members in another order.
    path.write_bytes(whole[512:10240] + whole[:512] + whole[10240:])
    with pytest.raises(DataError, match="train-001.tar has .* at byte .*: it is not the file"):
        _open(tars)[5]
    os.utime(path, ns=(0, 0))
    assert _index(tars, "--verify") == 1
    path.unlink()
    with pytest.raises(DataError, match="1 of 3 tar files are missing, .*train-001.tar first"):
        _open(tars)
    path.write_bytes(whole)
    (tmp_path / "tars/index/train-001.tar.npy").write_bytes(b"")
    with pytest.raises(DataError, match="train-001.tar.npy is missing or damaged; index"):
        _open(tars)[5]
    with pytest.raises(DataError, match=r"has no index of .*train-003.tar; index the files"):
        _open(tars.replace("002", "003"))


def test_a_changed_tar_file_is_indexed_anew(tars, tmp_path):
    assert _index(tars) == 0
    before = _open(tars).fingerprint
    path = _tar(tmp_path / "tars/train-001.tar", _example(7))
    later = path.stat().st_mtime_ns + 10**10
    os.utime(path, ns=(later, later))
    assert _index(tars) == 0
    assert len(_open(tars)) == 9 and _open(tars).fingerprint != before


def test_examples_that_do_not_fit(tmp_path):
    path = str(_tar(tmp_path / "a.tar", _example(1, txt=b"caf\xe9") + _example(2)))
    assert _index(path) == 0
    with pytest.raises(DataError, match="0001.txt: it is not UTF-8 text .byte 3 is 0xe9"):
        _open(path)[0]
    with pytest.raises(DataError, match="has 2 names, but there are the classes 0 to 2"):
        _open(path, class_names=("a", "b"))
    bare = str(_tar(tmp_path / "b/b.tar", [("x.png", _picture(1))]))
    assert _index(bare) == 0
    source = _open(bare)
    assert not source.has_captions and source.class_names == () and source[0]["caption"] == ""
    with pytest.raises(DataError, match="not all examples have a .cls"):
        _open(bare, class_names=("a",))
    with pytest.raises(DataError, match="caption=json.text, but not all examples of"):
        _open(bare, caption="json.text")
