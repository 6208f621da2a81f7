"""Reading people's files: one opener, one reader of text, one of JSON, one error.

Every path that a user, a config, a picture or another file names is opened here, so that pipes,
devices and folders are refused instead of waited for, and what is read has a limit.
"""

import json
import mmap
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ldm_jax.core.stores import as_path, is_stored, local_copy

MAX_TEXT = 256 * 2**20
"""Bytes of one text or JSON file: two million captions."""
# A tensor of a safetensors header has some ten of these marks, so that this allows a hundred
# thousand tensors; it bounds what a hostile header becomes in memory.
MAX_JSON_MARKS = 1_000_000
_SHOWN = 120
_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
"""Byte-order marks at the beginning of a text, and the encoding that each tells."""


class FileFormatError(ValueError):
    """A file that is missing, damaged, hostile or of another format; names it and the reason."""

    def __init__(self, path: str | Path, problem: str) -> None:
        super().__init__(path, problem)

    def __str__(self) -> str:
        path, problem = self.args
        return f"{printable(str(path))}: {problem}"


def shown(value: Any) -> str:
    """A name from a file as it may stand in a message: quoted, escaped, cut where it is long."""
    text = ascii(value[:_SHOWN]) if isinstance(value, str) else type(value).__name__
    return f"{text}..." if isinstance(value, str) and len(value) > _SHOWN else text


def printable(text: str) -> str:
    """`text` as it can be printed anywhere: bytes of file names that are not UTF-8 are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def open_file(path: str | Path) -> BinaryIO:
    """Opens a regular file (or one that a link leads to), or an object in a store, for reading.

    Raises:
        FileFormatError: there is no such file, it is not a regular one, or it is unreadable.
        OSError: a store cannot be reached.
    """
    path = as_path(path)
    if is_stored(path):
        return _open_object(path)
    try:
        # Looked at before opening, which for a pipe would wait for its writer; and opened without
        # waiting, for it may have become another in between.
        _check_regular(path, path.stat().st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _check_regular(path, os.fstat(descriptor).st_mode)
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise
    except FileNotFoundError as error:
        link = " (a link that leads nowhere)" if path.is_symlink() else ""
        raise FileFormatError(path, f"does not exist{link}") from error
    except OSError as error:
        raise FileFormatError(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        if isinstance(error, FileFormatError):
            raise
        raise FileFormatError(ascii(str(path)), "is no name of a file") from error


def _open_object(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise FileFormatError(path, "does not exist") from error
    except IsADirectoryError as error:
        raise FileFormatError(path, "is a folder; name a file in it") from error


def _check_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise FileFormatError(path, "is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise FileFormatError(path, "is not a regular file")


def map_file(path: str | Path) -> mmap.mmap:
    """The content of a regular file, read-only and on demand; of an object in a store, that of its
    copy on this machine.

    The file must not be shortened while its content is in use: the operating system then ends the
    process.

    Raises:
        FileFormatError: as `open_file`, or the file is empty.
    """
    path = as_path(path)
    if is_stored(path):
        _open_object(path).close()
        path = local_copy(path)
    with open_file(path) as file:
        if file.seek(0, 2) == 0:
            raise FileFormatError(path, "is empty; copy or download it again")
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise FileFormatError(path, f"cannot be read: {error.strerror}") from error


def read_bytes(path: str | Path, limit: int = MAX_TEXT) -> bytes:
    """The whole of a regular file of at most `limit` bytes.

    Raises:
        FileFormatError: as `open_file`, or the file is larger.
    """
    with open_file(path) as file:
        try:
            data = file.read(limit + 1)
        except OSError as error:
            if error.errno is None:  # a store, which has said all
                raise
            raise FileFormatError(path, f"cannot be read: {error.strerror}") from error
    if len(data) > limit:
        raise FileFormatError(path, f"has more than {limit} bytes, which no such file needs")
    return data


def read_text(path: str | Path) -> str:
    r"""A text as its writer meant it: UTF-8, or what its byte-order mark says, without the mark;
    lines end in \n, whichever system they were written on.

    Raises:
        FileFormatError: as `read_bytes`, or bytes that are not of that encoding, with their place.
    """
    return decode(path, read_bytes(path))


def read_lines(path: str | Path) -> list[str]:
    """The lines of `read_text`, without their ends. Only line ends divide: not form feeds, nor the
    other separators that `str.splitlines` knows."""
    lines = read_text(path).split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def decode(path: str | Path, data: bytes) -> str:
    """The text in `data`, which `path` holds, as `read_text` has it."""
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise FileFormatError(
            path,
            f"is not {encoding.removesuffix('-sig').upper()} text: byte {error.start}, in line "
            f"{line}, is {data[error.start]:#04x} ({error.reason}); save it as UTF-8",
        ) from error
    if "\0" in text:  # another encoding without its mark, or no text at all
        at, line = text.index("\0"), text.count("\n", 0, text.index("\0")) + 1
        raise FileFormatError(
            path, f"is no text: character {at}, in line {line}, is 0x00; save it as UTF-8"
        )
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: str | Path) -> dict[str, Any]:
    """The JSON object that a file holds; `parse_json` says how strictly.

    Raises:
        FileFormatError: as `read_text` and `parse_json`.
    """
    return parse_json(path, "it", read_bytes(path))


def parse_json(
    path: str | Path,
    what: str,
    data: bytes | str,
    max_marks: int = MAX_JSON_MARKS,
    without: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The JSON object `data`, in which no object names anything twice.

    Args:
        max_marks: commas and opening brackets, at most.
        without: members that are forgotten as soon as they are read, wherever they are.

    Raises:
        FileFormatError: names `what` of `path`: not JSON in UTF-8, not an object, a name given
            twice, nested too deeply, or far more values than any list of tensors has.
    """
    marks = (b",", b"[", b"{") if isinstance(data, bytes) else ",[{"
    if sum(data.count(mark) for mark in marks) > max_marks:
        raise FileFormatError(path, f"{what} has more values than any model has tensors")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise FileFormatError(path, f"{what} names {shown(twice)} twice")
        return {name: members[name] for name in members if name not in without}

    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=unique)
    except FileFormatError:
        raise
    except (ValueError, RecursionError) as error:
        reason: Any = "nested too deeply" if isinstance(error, RecursionError) else error
        if isinstance(error, UnicodeDecodeError):
            reason = f"byte {error.start} is {error.object[error.start]:#04x}, which is not UTF-8"
        if "integer string conversion" in str(error):
            reason = "a number of thousands of digits"
        raise FileFormatError(path, f"{what} is not JSON: {reason}") from error
    if not isinstance(value, dict):
        raise FileFormatError(path, f"{what} is not a JSON object")
    return value
