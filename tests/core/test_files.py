"""What is said where nothing can be written."""

import errno
import os
from pathlib import Path

import pytest

from ldm_jax.core import files
from ldm_jax.core.files import (
    NotWritable,
    NotWritten,
    check_writable,
    temporary,
    write_atomically,
    writing,
)


def error_of(number, name=None):
    return OSError(number, os.strerror(number), name)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "out cannot be written: the disk is full; make room, or name another"),
        (errno.EROFS, "out cannot be written: the disk is read-only; name another folder"),
        (errno.EFBIG, "out cannot be written: a file would be larger than is allowed here"),
        (errno.EACCES, "out cannot be written: that is not allowed; name another folder"),
        (errno.ELOOP, "out cannot be written: Too many levels of symbolic links; name another"),
    ],
)
def test_the_place_is_the_users_and_the_reason_in_plain_words(number, words):
    # The error itself names no file, or one that is nobody's business.
    for name in (None, "out/.a.1.tmp/weights"):
        with pytest.raises(NotWritten) as raised, writing(Path("out")):
            raise error_of(number, name)
        assert str(raised.value).startswith(words) and raised.value.errno == number


def test_a_library_that_speaks_of_a_full_disk_is_understood():
    said = "write() failed: No space left on device; writing /tmp/.a.1.tmp; at byte 0"
    with pytest.raises(NotWritten, match="^a cannot be written: the disk is full"):  # noqa: SIM117
        with writing(Path("a")):
            raise RuntimeError(said)
    with pytest.raises(RuntimeError, match="of its own"), writing(Path("a")):
        raise RuntimeError("something of its own")


def test_of_a_hidden_file_the_folder_is_named():
    with pytest.raises(NotWritten, match="^out cannot be"), writing(Path("out/.reserve")):
        raise error_of(errno.ENOSPC)


def test_a_place_that_cannot_be_written_to_is_refused_before_anything_is_done(
    tmp_path, monkeypatch
):
    check_writable(tmp_path / "new" / "deep", "--out=new")
    assert not any(tmp_path.iterdir())
    with pytest.raises(NotWritable, match=r"^--out=/proc/x: /proc cannot be written to: nothing"):
        check_writable(Path("/proc/x"), "--out=/proc/x")

    def read_only(**_):
        raise error_of(errno.EROFS)

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    words = rf"--workdir=w: {tmp_path} cannot be written to: the disk is read-only; name another"
    with pytest.raises(NotWritable, match=words):
        check_writable(tmp_path / "w", "--workdir=w")


def test_the_folder_of_a_file_is_made(tmp_path):
    write_atomically(tmp_path / "new" / "deep" / "file", b"1")
    assert (tmp_path / "new" / "deep" / "file").read_bytes() == b"1"


def test_nothing_is_left_of_what_could_not_be_written(tmp_path, monkeypatch):
    def full(descriptor):
        raise error_of(errno.ENOSPC)

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(NotWritten, match=f"{tmp_path / 'a'} cannot be written: the disk is full"):
        write_atomically(tmp_path / "a", b"a")
    with pytest.raises(ValueError, match="other"), temporary(tmp_path / "b") as draft:
        (draft / "deep").mkdir(parents=True)
        (draft / "deep" / "c").write_text("c")
        raise ValueError("other")
    assert not any(tmp_path.iterdir())
