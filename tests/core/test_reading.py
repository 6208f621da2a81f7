import os
import pickle

import pytest

from ldm_jax.core import reading
from ldm_jax.core.reading import FileFormatError, map_file, shown


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


def test_pipes_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(FileFormatError, match="not a regular file"):
            reading.read_bytes(path)


def test_names_that_no_file_can_have(tmp_path):
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(FileFormatError):
            reading.read_bytes(tmp_path / name)


def test_a_file_is_read_up_to_its_limit(file):
    file.write_bytes(b"abcd")
    assert reading.read_bytes(file, 4) == b"abcd"
    with pytest.raises(FileFormatError, match="more than 3 bytes"):
        reading.read_bytes(file, 3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_read_as_it_was_meant(file, encoding):
    file.write_bytes("a naïve 3\r\nnext\rlast\x0c\u2028line\n".encode(encoding))
    assert reading.read_text(file) == "a naïve 3\nnext\nlast\x0c\u2028line\n"
    assert reading.read_lines(file) == ["a naïve 3", "next", "last\x0c\u2028line"]


def test_text_of_another_encoding_is_named_with_its_place(file):
    file.write_bytes(b"first\ncaf\xe9\n")
    with pytest.raises(FileFormatError, match="is not UTF-8 text: byte 9, in line 2, is 0xe9"):
        reading.read_text(file)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 200_000, "nested too deeply"),
        ("[1]", "not a JSON object"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "names 'c' twice"),
        ("{", "is not JSON"),
        ("", "is not JSON"),
        ("[" + "1," * 10**6 + "1]", "more values"),
        ('{"a": ' + "1" * 5000 + "}", "is not JSON"),
    ],
)
def test_json_is_read_strictly(file, text, problem):
    file.write_text(text)
    with pytest.raises(FileFormatError, match=problem):
        reading.read_json(file)


def test_json_with_a_mark_is_read(file):
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert reading.read_json(file) == {"a": 1}
