"""What readers of foreign files share: the error, files mapped into memory, JSON with bounds."""

import json
import mmap
import stat
from pathlib import Path
from typing import Any

# A tensor of a safetensors header has some ten of these marks, so that this allows a hundred
# thousand tensors; it bounds what a hostile header becomes in memory.
_JSON_MARKS = 1_000_000
_SHOWN = 120


class FileFormatError(ValueError):
    """A file that is missing, damaged, hostile or of another format; names it and the reason."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(path, problem)

    def __str__(self) -> str:
        path, problem = self.args
        return f"{path}: {problem}"


def shown(value: Any) -> str:
    """A name from a file as it may stand in a message: quoted, escaped, cut where it is long."""
    text = ascii(value[:_SHOWN]) if isinstance(value, str) else type(value).__name__
    return f"{text}..." if isinstance(value, str) and len(value) > _SHOWN else text


def map_file(path: Path) -> mmap.mmap:
    """The content of a regular file (or of one that a link leads to), read-only and on demand.

    The file must not be shortened while its content is in use: the operating system then ends the
    process.

    Raises:
        FileFormatError: there is no such file, it is not a regular one, unreadable or empty.
    """
    try:
        # Before opening: opening a pipe would wait for its writer.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise FileFormatError(path, "is a folder; name a file in it")
        if not stat.S_ISREG(mode):
            raise FileFormatError(path, "is not a regular file")
        with path.open("rb") as file:
            if file.seek(0, 2) == 0:
                raise FileFormatError(path, "is empty; copy or download it again")
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as error:
        link = " (a link that leads nowhere)" if path.is_symlink() else ""
        raise FileFormatError(path, f"does not exist{link}") from error
    except OSError as error:
        raise FileFormatError(path, f"cannot be read: {error.strerror}") from error


def strict_json(path: Path, what: str, data: bytes) -> dict[str, Any]:
    """The JSON object `data`, in which no object names anything twice.

    Raises:
        FileFormatError: names `what` of `path`: not JSON in UTF-8, not an object, a name given
            twice, nested too deeply, or far more values than any list of tensors has.
    """
    if sum(data.count(mark) for mark in (b",", b"[", b"{")) > _JSON_MARKS:
        raise FileFormatError(path, f"{what} has more values than any model has tensors")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise FileFormatError(path, f"{what} names {shown(twice)} twice")
        return members

    try:
        text = data.decode()
        value = json.loads(text, object_pairs_hook=unique)
    except FileFormatError:
        raise
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise FileFormatError(path, f"{what} is not JSON: {reason}") from error
    if not isinstance(value, dict):
        raise FileFormatError(path, f"{what} is not a JSON object")
    return value
