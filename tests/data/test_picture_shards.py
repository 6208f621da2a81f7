"""Shards of pictures: written, listed, read, and refused where they are not what was written."""

import io
import json
import pickle

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.cli import shards as command
from ldm_jax.data import records, stored_pictures
from ldm_jax.data.loader import make_loader
from ldm_jax.data.picture_shards import read_record, record
from ldm_jax.data.sources import DataError, open_source
from ldm_jax.data.stored_pictures import Stored


def _picture(size=(9, 6), kind="PNG", colour=(200, 10, 10)):
    written = io.BytesIO()
    Image.new("RGB", size, colour).save(written, kind)
    return written.getvalue()


def _folder(root, count=10):
    for i in range(count):
        path = root / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(colour=(i, 0, 0)))
        path.with_suffix(".txt").write_text(f"é {i}")
    return root


def _write(folder, out, *words, shard_size=4):
    return command.main(
        [f"--out={out}", f"--data.source.path={folder}", f"--shard_size={shard_size}", *words]
    )


def _open(out, split="train", **settings):
    return open_source(cfg.Data(cfg.Shards(path=str(out), **settings), 8), split)


@pytest.fixture
def folder(tmp_path):
    return _folder(tmp_path / "folder")


@pytest.fixture
def shards(folder, tmp_path):
    assert _write(folder, tmp_path / "out", "--data.source.validation_fraction=0") == 0
    return tmp_path / "out"


def test_examples_are_those_of_the_folder(folder, shards):
    source = _open(shards)
    whole = cfg.ImageFolder(path=str(folder), validation_fraction=0.0)
    images = open_source(cfg.Data(whole, 8), "train")
    assert len(source) == 10 and source.class_names == ("a", "b") and source.has_captions
    for row in range(10):
        one, other = source[row], images[row]
        np.testing.assert_array_equal(one.pop("image"), other.pop("image"))
        assert one.pop("file") == other.pop("file").read_bytes() == source.stored(row).picture
        assert one == other
    assert [*source.captions()] == [*images.captions()]
    assert [*source.labels()] == [*images.labels()] and not [*source.names()]
    assert source.found.startswith(f"10 images of train in 3 shards in {shards}, captions, 2")
    assert pickle.loads(pickle.dumps(source))[3]["name"] == source[3]["name"]
    with pytest.raises(DataError, match="has no validation split"):
        _open(shards, "validation")


def test_batches_are_those_of_the_folder(folder, shards):
    """The same order over epochs, crops and flips."""

    def batches(source):
        data = cfg.Data(source, 4, batch_size=4)
        loader = make_loader(open_source(data, "train"), data, seed=3, train=True)
        found = [next(loader)["image"] for _ in range(6)]
        loader.close()
        return found

    how = {"crop": "random", "flip": True}
    whole = cfg.ImageFolder(path=str(folder), validation_fraction=0.0, **how)
    np.testing.assert_array_equal(batches(whole), batches(cfg.Shards(path=str(shards), **how)))


def test_validation_has_shards_of_its_own(folder, tmp_path):
    assert _write(folder, tmp_path / "out", "--data.source.validation_fraction=0.4") == 0
    sources = _open(tmp_path / "out"), _open(tmp_path / "out", "validation")
    parts = [{source[row]["name"] for row in range(len(source))} for source in sources]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 10


def test_opening_reads_no_shard(shards, monkeypatch):
    """However many there are: each is opened when one of its examples is read."""
    opened = []

    class Reader(records.ArrayRecordReader):
        def __init__(self, path, **options):
            opened.append(path)
            super().__init__(path, **options)

    monkeypatch.setattr(records, "ArrayRecordReader", Reader)
    source = _open(shards)
    assert len(source) == 10 and source.fingerprint and not opened
    source[5]
    source[6]
    assert opened == [str(shards / "train/00001-of-00003.array_record")]


def test_so_many_captions_are_read_at_most(shards, monkeypatch):
    monkeypatch.setattr(stored_pictures, "TOLD", 4)
    monkeypatch.setattr(stored_pictures, "BLOCK", 2)
    source = _open(shards)
    assert [*source.labels()] == [0, 0, 1, 1]
    assert len([*source.captions()]) == 4


def test_processes_and_interruptions_write_the_same(folder, shards, tmp_path, capsys):
    out = tmp_path / "shared"
    plain = "--data.source.validation_fraction=0"
    assert _write(folder, out, plain, "--num_processes=2", "--process_id=1") == 0
    assert "other processes have 2 of 3 shards to write" in capsys.readouterr().out
    with pytest.raises(DataError, match="is not finished: the python -m ldm_jax.cli.shards"):
        _open(out)
    (out / "train/00001-of-00003.array_record").write_bytes(b"cut")
    assert _write(folder, out, plain, "--num_processes=2", "--process_id=0") == 0
    assert _write(folder, out, plain) == 0
    for path in (shards / "train").glob("*.*"):
        assert path.read_bytes() == (out / "train" / path.name).read_bytes(), path.name
    assert _open(out).fingerprint == _open(shards).fingerprint
    assert _write(folder, out, plain, shard_size=5) == 2
    assert "shard_size was 4, is 5" in capsys.readouterr().err


def test_pictures_can_be_made_smaller():
    jpeg = _picture((40, 30), "JPEG")
    small = read_record("x", record(Stored(jpeg, "", 0, "a"), 15)).picture
    assert Image.open(io.BytesIO(small)).size == (20, 15)
    assert Image.open(io.BytesIO(small)).format == "JPEG"
    png = read_record("x", record(Stored(_picture((40, 30), "WEBP"), "", 0, "a"), 15)).picture
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert read_record("x", record(Stored(jpeg, "", 0, "a"), 30)).picture == jpeg
    turned = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(turned, "JPEG", exif=exif)
    written = record(Stored(turned.getvalue(), "", 0, "a"))
    assert b'"size": [40, 30]' in written
    small = read_record("x", record(Stored(turned.getvalue(), "", 0, "a"), 15)).picture
    assert Image.open(io.BytesIO(small)).size == (15, 20)


def test_broken_pictures_stop_or_are_left_out(folder, tmp_path, capsys):
    (folder / "a/4.png").write_bytes(_picture()[:50])
    plain = "--data.source.validation_fraction=0"
    assert _write(folder, tmp_path / "out", plain) == 2
    assert "4.png: cannot be read as a picture" in capsys.readouterr().err
    assert _write(folder, tmp_path / "out", plain, "--data.source.on_broken=skip") == 0
    assert "9 images written, 1 left out that cannot be read" in capsys.readouterr().out
    names = [one["name"] for one in map(_open(tmp_path / "out").__getitem__, range(9))]
    assert len(_open(tmp_path / "out")) == 9 and "a/4.png" not in names


def test_what_cannot_be_stored_is_refused(folder, tmp_path, capsys):
    for words, message in (
        (
            ["--data.source.boxes=x.jsonl"],
            "boxes is 'x.jsonl'; it must be",
        ),
        (["--data.source=Mixture"], "data.source is 'Mixture'; it must be a source of images; of"),
    ):
        assert command.main([f"--out={tmp_path / 'out'}", *words]) == 2
        assert message in capsys.readouterr().err
    assert _write(folder, folder / "out") == 2
    assert "the folder of the images" in capsys.readouterr().err


def test_shards_that_are_not_what_was_written(shards, capsys):
    first = shards / "train/00000-of-00003.array_record"
    content = first.read_bytes()
    assert command.main([f"--out={shards}", "--verify"]) == 0
    assert "train: all 3 shards are as they were written" in capsys.readouterr().out
    first.write_bytes(content[:-1])
    with pytest.raises(DataError, match="00000-of-00003.array_record is missing or damaged"):
        _open(shards)[0]
    assert command.main([f"--out={shards}", "--verify"]) == 1
    assert f"1 of 3 shards are not what was written: {first} has" in capsys.readouterr().err
    first.unlink()
    with pytest.raises(DataError, match="lacks 1 of 3 shards, 00000-of-00003.array_record first"):
        _open(shards)
    first.write_bytes(content)
    second = first.with_name("00000-of-00004.array_record")
    second.write_bytes(content)
    with pytest.raises(DataError, match="has 00000-of-00004.array_record, which its index.json"):
        _open(shards)
    second.unlink()
    index = shards / "train/index.json"
    found = json.loads(index.read_text())
    for changed, message in (
        (found | {"shards": [found["shards"][0]] * 2}, "lists 00000-of-00003.array_record twice"),
        (found | {"shards": [found["shards"][0] | {"examples": "4"}]}, "examples is not what it"),
        (found | {"class_names": None}, "class_names is not what it should be"),
        ({"shards": found["shards"]}, "class_names, has_captions is not what"),
        ({}, "has no list of shards"),
    ):
        index.write_text(json.dumps(changed))
        with pytest.raises(DataError, match=message):
            _open(shards)


def test_records_that_are_not_what_they_should_be():
    one = Stored(_picture(), "a", 0, "b")
    whole = record(one)
    assert read_record("x", whole) == one
    head = whole[: -len(one.picture)]
    for data, message in (
        (head, "shard, record 3 has no picture"),
        (b"", "is no record of a picture|has no picture|is not JSON"),
        (whole[:20], "is no record of a picture"),
        (b"\x02\0\0\0{}" + one.picture, "has no caption, label and name"),
        (head.replace(b'"a"', b'"\xe9"'), "description is not UTF-8 text"),
    ):
        with pytest.raises(ValueError, match=message):
            read_record("shard, record 3", data)
