"""Folders of drawn pictures: checked before anything is drawn, listed whatever happens."""

import errno
import json
import os

import numpy as np
import pytest
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.core.files import NotWritable
from ldm_jax.images import sample_writer
from ldm_jax.images.sample_writer import FolderError, SampleWriter, check_folder

REQUEST = cfg.Request.from_dict({"model": "m", "classes": [3, 4], "num": 2})
BLACK = np.zeros((8, 8, 3), np.uint8)


def writer(out, request=REQUEST, total=4):
    return SampleWriter(out, request, total, origin={}, versions={})


def listed(out):
    return [entry["file"] for entry in json.loads((out / "manifest.json").read_text())["images"]]


def test_folders_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.png").write_text("x")
    for out, overwrite, complaint in (
        (tmp_path / "file", False, "file is a file; name a folder"),
        (tmp_path / "file" / "deep" / "out", True, "file is a file, below which lies --out="),
        (tmp_path / "link", False, "is a link that leads nowhere"),
        (tmp_path / "full", False, "is not empty; choose another, or --overwrite"),
        (tmp_path / "full", True, "full has files but no manifest.json .* files of others"),
    ):
        with pytest.raises((FolderError, NotWritable), match=complaint):
            check_folder(out, overwrite, [])
    check_folder(tmp_path / "new" / "out", False, [])
    check_folder(tmp_path / "full", True, [], ("a.png", "b.png"))
    with pytest.raises(FolderError, match="files of others"):
        check_folder(tmp_path / "full", True, [], ("b.png",))
    with writer(tmp_path / "drawn") as drawn:
        drawn.write(BLACK, 0, 0)
    check_folder(tmp_path / "drawn", True, [("mask", tmp_path / "mask.png")])
    assert not (tmp_path / "new").exists()


def test_what_is_read_is_not_overwritten(tmp_path):
    for option, path in (("init_image", tmp_path / "a.png"), ("model", tmp_path)):
        with pytest.raises(FolderError, match=f"--{option}=.* is in --out="):
            check_folder(tmp_path, True, [(option, path)])


@pytest.mark.parametrize(
    ("manifest", "complaint"),
    [
        ('{"name": "web app", "icons": []}', "is not the manifest of drawn pictures"),
        ('{"images": ["a.png"]}', "is not the manifest of drawn pictures"),
        ('{"images": 3}', "is not the manifest of drawn pictures"),
        ('{"images": []}', "is not the manifest of drawn pictures"),
        ('{"images": [{"file": "a.p', "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_other_manifests_are_refused_before_anything_is_drawn(tmp_path, manifest, complaint):
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(FolderError, match=complaint):
        check_folder(tmp_path, True, [])
    assert (tmp_path / "manifest.json").read_text() == manifest


def test_a_former_drawing_goes_with_the_first_new_picture_and_nothing_else_does(tmp_path):
    out, kept = tmp_path / "out", tmp_path / "kept.png"
    kept.write_text("x")
    with writer(out) as first:
        first.write(BLACK, 1, 1)
    manifest = json.loads((out / "manifest.json").read_text())
    manifest["images"] += [{"file": "../kept.png"}, {"file": "mine.png", "sha256": "0" * 64}]
    (out / "manifest.json").write_text(json.dumps(manifest))
    (out / "mine.png").write_text("not drawn, or changed since")
    with pytest.raises(KeyboardInterrupt), writer(out):
        raise KeyboardInterrupt
    assert listed(out) == ["0001_0001.png", "../kept.png", "mine.png"]
    with writer(out) as second:
        second.write(BLACK, 0, 0)
    assert listed(out) == ["0000_0000.png"] and kept.exists()
    (out / "mine.png").unlink()
    assert sorted(p.name for p in out.iterdir()) == ["0000_0000.png", "grid.png", "manifest.json"]


def test_an_interrupted_drawing_lists_what_was_drawn(tmp_path):
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "out") as drawn:
        drawn.write(BLACK, 1, 0)
        drawn.write(BLACK, 0, 1)
        raise KeyboardInterrupt
    assert listed(tmp_path / "out") == ["0000_0001.png", "0001_0000.png"]
    with pytest.raises(KeyboardInterrupt), writer(tmp_path / "none"):
        raise KeyboardInterrupt
    assert not (tmp_path / "none").exists()


def kill(writer):
    """What a drawing that is killed does: nothing more, and its lock goes."""
    writer._reserve.close()


def test_a_killed_drawing_blocks_no_folder_in_which_there_is_nothing(tmp_path):
    out = tmp_path / "out"
    kill(writer(out))
    (out / ".0000_0000.png.123.tmp").write_text("half a picture")
    assert (out / sample_writer.RESERVE).exists()
    check_folder(out, False, [])
    with writer(out) as again:
        again.write(BLACK, 0, 0)
    assert sorted(p.name for p in out.iterdir()) == ["0000_0000.png", "grid.png", "manifest.json"]


def test_pictures_of_a_killed_drawing_are_not_mixed_with_new_ones(tmp_path):
    out = tmp_path / "out"
    with writer(out) as first:
        first.write(BLACK, 0, 0)
    killed = writer(out)
    kill(killed)
    check_folder(out, True, [])  # its manifest lists all there is
    killed = writer(out)
    killed.write(BLACK, 1, 0)
    killed.write(BLACK, 1, 1)
    kill(killed)
    with pytest.raises(FolderError, match="is not empty"):
        check_folder(out, False, [])
    with pytest.raises(FolderError, match=r"no manifest.json lists: 0001_0000.png and 1 more; rem"):
        check_folder(out, True, [])
    for name in ("0001_0000.png", "0001_0001.png"):
        (out / name).unlink()
    with writer(out) as again:
        again.write(BLACK, 0, 1)
    assert listed(out) == ["0000_0001.png"] and not (out / sample_writer.RESERVE).exists()


def test_two_commands_do_not_draw_into_one_folder(tmp_path):
    with writer(tmp_path / "out"):
        with pytest.raises(FolderError, match="is being drawn into by another command"):
            check_folder(tmp_path / "out", True, [])
        with pytest.raises(FolderError, match="is being drawn into by another command"):
            writer(tmp_path / "out")
        assert (tmp_path / "out" / sample_writer.RESERVE).exists()


def test_a_full_disk_is_named_and_what_was_drawn_is_listed(tmp_path, monkeypatch):
    """The disk has room for what is reserved, and no more once that is taken."""
    out, writes = tmp_path / "out", sample_writer.save_png

    def save_png(path, *more):
        if (out / sample_writer.RESERVE).exists() and len(list(out.glob("0*.png"))) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        writes(path, *more)

    monkeypatch.setattr(sample_writer, "save_png", save_png)
    with pytest.raises(OSError, match=r"No space left on device: '.*0001_0000\.png'"):  # noqa: SIM117
        with writer(out) as drawn:
            for place in (0, 1):
                for number in (0, 1):
                    drawn.write(BLACK, place, number)
    assert listed(out) == ["0000_0000.png", "0000_0001.png"]
    assert not (out / sample_writer.RESERVE).exists()


def test_many_large_pictures_have_small_thumbnails(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_writer, "GRID_PIXELS", 2**16)
    request = cfg.Request.from_dict({"model": "m", "num": 30})
    with writer(tmp_path / "out", request, 30) as drawn:
        for number in range(30):
            drawn.write(np.full((128, 64, 3), number, np.uint8), 0, number)
    with Image.open(tmp_path / "out" / "grid.png") as grid:
        # 46 x 23 pixels each, so that all have room in the 2^16 that were allowed.
        assert grid.size == (8 * (23 + 2) + 2, 4 * (46 + 2) + 2)
    with Image.open(tmp_path / "out" / "0000_0029.png") as picture:
        assert picture.size == (64, 128)


def test_of_more_pictures_than_a_grid_holds_the_first_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(sample_writer, "GRID_PIXELS", 4 * 32**2)
    request = cfg.Request.from_dict({"model": "m", "classes": [3], "num": 6})
    with writer(tmp_path / "out", request, 6) as drawn:
        for number in range(6):
            drawn.write(BLACK, 0, number)
    assert len(drawn._thumbnails) == 4 and len(listed(tmp_path / "out")) == 6
