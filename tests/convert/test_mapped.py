import os
import pickle

import pytest

from ldm_jax.convert.mapped import FileFormatError, map_file, shown


@pytest.fixture
def file(tmp_path):
    return tmp_path / "file"


def refused(path, match):
    with pytest.raises(FileFormatError, match=match) as error:
        map_file(path)
    assert str(error.value).startswith(f"{path}: ")


def test_missing_file(file):
    refused(file, "does not exist")


def test_dangling_link(file, tmp_path):
    file.symlink_to(tmp_path / "nowhere")
    refused(file, "leads nowhere")


def test_link_to_a_file(file, tmp_path):
    (tmp_path / "blob").write_bytes(b"abc")
    file.symlink_to(tmp_path / "blob")
    assert map_file(file)[:] == b"abc"


def test_folder_pipe_and_empty_file(tmp_path):
    refused(tmp_path, "is a folder")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "not a regular file")
    (tmp_path / "empty").touch()
    refused(tmp_path / "empty", "is empty")


def test_the_error_survives_the_way_between_processes(file):
    error = pickle.loads(pickle.dumps(FileFormatError(file, "is empty")))
    assert str(error) == f"{file}: is empty"


def test_names_are_escaped_and_cut():
    assert shown("a.b") == "'a.b'"
    assert shown("\x1b[2J") == "'\\x1b[2J'"
    assert len(shown("a" * 10**6)) < 200
    assert shown(3) == "int"
