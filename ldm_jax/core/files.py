"""Files that appear complete or not at all, what is said where they cannot be written, and digests
that tell whether they are still intact."""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from ldm_jax.core.reading import open_file, read_json, shown
from ldm_jax.core.signals import at_end, undisturbed
from ldm_jax.core.stores import is_stored, is_unreachable, there

DIGESTS = "digests.json"
_ELSEWHERE = "name another folder"
_ROOM = "make room, or name another folder"
_REASONS = {
    errno.ENOSPC: ("the disk is full", _ROOM),
    errno.EDQUOT: ("the room that you are allowed on this disk is used up", _ROOM),
    errno.EFBIG: ("a file would be larger than is allowed here (ulimit -f)", "allow larger ones"),
    errno.EROFS: ("the disk is read-only", _ELSEWHERE),
    errno.EACCES: ("that is not allowed", _ELSEWHERE),
    errno.EPERM: ("that is not allowed", _ELSEWHERE),
    errno.ENOENT: ("nothing can be made there", _ELSEWHERE),
    errno.ENOTDIR: ("a part of the path is no folder", _ELSEWHERE),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.EIO: ("the disk fails to read or write", "repair it, or name another folder"),
}
"""Errors of the operating system: why something cannot be written, and what to do."""
NEVER_OF_READING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class NotWritten(OSError):
    """Something could not be written; names it, the reason and what to do."""

    def __str__(self) -> str:
        return not_written(self)


class NotWritable(ValueError):
    """A place that cannot be written to, found before anything was begun."""


def not_written(error: OSError) -> str:
    """What an error of the operating system means for whoever wanted a file, in one sentence.

    Of a hidden file, which is none of theirs, the folder is named.
    """
    reason, advice = _REASONS.get(error.errno, (error.strerror or str(error), _ELSEWHERE))
    where = "the output"
    if error.filename is not None:
        path = Path(os.fsdecode(error.filename))
        where = str(path.parent if path.name.startswith(".") else path)
    return f"{where} cannot be written: {reason}; {advice}"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What goes wrong inside goes wrong with writing `path`, which is what the user knows of.

    Raises:
        NotWritten: names `path`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise NotWritten(error.errno, error.strerror, str(path)) from error
    except RuntimeError as error:  # of a library that writes by itself
        number = _number_in(str(error))
        if number is None:
            raise
        raise NotWritten(number, os.strerror(number), str(path)) from error


def _number_in(text: str) -> int | None:
    """Which error of the operating system a library speaks of, if it is one of writing."""
    # As TensorStore has it, which writes checkpoints.
    found = re.search(r"os_error_code='(\d+)'|OS error (\d+)", text)
    if found:
        return int(found[1] or found[2])
    # As ArrayRecord has it.
    return next((n for n in NEVER_OF_READING if os.strerror(n) in text), None)


@contextlib.contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A hidden name beside `path` for a file or folder that is to become it; makes the folder that
    it is in.

    What has that name when all is over is removed, also where a signal ends the command.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    one = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with at_end(lambda: remove(one)):
            yield one
    finally:
        remove(one)


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it, if it is there."""
    if is_stored(path):
        path.rmtree()
        return
    if path.is_dir() and not path.is_symlink():
        import shutil

        for _ in range(9):  # somebody may still be writing into it
            shutil.rmtree(path, ignore_errors=True)
            if not path.exists():
                return
    path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Removes a folder with all that is in it, as far as that goes; of a file system no errors."""
    if is_stored(folder):
        folder.rmtree()
        return
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside `path`, flushes to disk, and renames; leaves nothing behind if that fails. An
    object in a store appears whole by itself.

    Raises:
        NotWritten: names `path`, also where a disk is full.
        OSError: a store cannot be reached.
    """
    if is_stored(path):
        with undisturbed():
            path.write_bytes(content)
        return
    with undisturbed(), writing(path), temporary(path) as draft:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def check_writable(folder: Path, named: str, stored: bool = False) -> None:
    """Refuses, before any work is done, a folder that cannot be written into later.

    Args:
        folder: it need not be there yet.
        named: what the user called it, such as "--out=samples".
        stored: it may lie in a store.

    Raises:
        NotWritable: names what stands in the way, and `named`.
    """
    if is_stored(folder):
        if stored:
            return
        raise NotWritable(
            f"{named}: nothing but work directories, shards, encoded images and drawings is "
            "written to a store; name a local folder"
        )
    import tempfile

    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = "a file" if existing.exists() else "a link that leads nowhere"
        below = "" if existing == folder else f", below which lies {named}"
        raise NotWritable(f"{existing} is {what}{below}; name a folder")
    try:
        # Tried, for permissions do not tell: root has them all, and disks have minds of their own.
        tempfile.TemporaryFile(dir=existing).close()
    except OSError as error:
        reason, advice = _REASONS.get(error.errno, (error.strerror, _ELSEWHERE))
        raise NotWritable(
            f"{named}: {existing} cannot be written to: {reason}; {advice}"
        ) from error


def check_apart(out: Path, option: str, folder: Path, what: str, below: bool = True) -> None:
    """Refuses to write into `folder`, which holds `what`, or with `below` into a folder in it.

    Raises:
        ValueError: names `option`, which gave `out`, and `folder`.
    """
    target, holder = (
        path if is_stored(path) else Path(os.path.realpath(path)) for path in (out, folder)
    )
    if target == holder or (below and target.is_relative_to(holder)):
        where = "is" if target == holder else f"lies in {folder},"
        raise ValueError(f"{option}={out} {where} the folder of {what}; name another")


def write_digests(
    directory: Path,
    besides: Collection[str] = (),
    noted: Mapping[str, dict[str, Any]] | None = None,
) -> None:
    """Notes size and SHA-256 of every file below `directory` in its `digests.json`.

    Files named as in `besides`, which may still change, are left out; those in `noted`, which
    `digests` gave, are not read.
    """
    known = dict(noted or {})
    names = [
        name
        for name in files_below(directory)
        if name not in known and Path(name).name not in {DIGESTS, *besides}
    ]
    found = known | digests(directory, names)
    content = json.dumps(dict(sorted(found.items())), indent=1)
    write_atomically(directory / DIGESTS, content.encode())


def files_below(directory: Path) -> list[str]:
    """The names of all files below `directory`, relative, rising; [] if it is not there."""
    return [
        str(path.relative_to(directory)) for path in sorted(directory.rglob("*")) if path.is_file()
    ]


def damage(
    directory: Path,
    covered: Collection[str] = (),
    besides: Collection[str] = (),
    share: tuple[int, int] = (0, 1),
) -> list[str]:
    """What is wrong with the files that `write_digests` noted, in words; [] if nothing is.

    Each of the subfolders `covered` must have files, and all of them must have been noted, but for
    hidden ones and those named as in `besides`. Of a `share` (index, count) the files are read that
    fall to it, about as many bytes as to the others; the first one looks at the names, too.
    """
    path = directory / DIGESTS
    if not path.is_file():
        return [f"{path} is missing"]
    try:
        noted = read_json(path)
    except ValueError as error:
        return [f"{path} cannot be read ({error})"]
    index, count = share
    problems = [] if index else _not_noted(directory, noted, covered, besides)
    return problems + changes(directory, _part(noted, index, count), str(path))


def _not_noted(
    directory: Path, noted: Any, covered: Collection[str], besides: Collection[str]
) -> list[str]:
    """What is wrong with the names of the files below `directory`."""
    path = directory / DIGESTS
    problems = [
        f"{file} is no regular file"
        for file in sorted(directory.rglob("*"))
        if not (file.is_file() or file.is_dir())
    ]
    for folder in covered:
        if not any(name.startswith(f"{folder}/") for name in noted):
            problems.append(f"{path} notes no file of {folder}")
        names = [
            f"{folder}/{name}"
            for name in files_below(directory / folder)
            if not Path(name).name.startswith(".") and Path(name).name not in besides
        ]
        problems += [f"{path} does not note {name}" for name in names if name not in noted]
    return problems


def _part(noted: Any, index: int, count: int) -> Any:
    """The part `index` of so many of what is noted, each of about as many bytes."""
    if not isinstance(noted, dict):
        return noted
    sizes = {name: one["bytes"] if _is_digest(one) else 0 for name, one in noted.items()}
    loads, part = [0] * count, {}
    for name in sorted(noted, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        loads[least] += sizes[name]
        if least == index:
            part[name] = noted[name]
    return part


def digests(directory: Path, names: Collection[str]) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of the files `names` below `directory`.

    Raises:
        FileFormatError: one is missing or unreadable.
    """
    return {name: _digest(directory / name) for name in names}


def changes(directory: Path, noted: Any, where: str) -> list[str]:
    """What differs from `noted`, which `digests` gave and `where` tells, in words."""
    if not isinstance(noted, dict):
        return [f"the digests in {where} are no JSON object"]
    problems = []
    for name, expected in noted.items():
        file = directory / name
        if not _is_digest(expected):
            problems.append(f"{where} has no digest of {shown(name)}")
        elif not file.is_file():
            problems.append(f"{file} is {'no regular file' if there(file) else 'missing'}")
        elif file.stat().st_size != expected["bytes"]:
            size = file.stat().st_size
            problems.append(f"{file} has {size} bytes instead of {expected['bytes']}")
        elif _digest(file) != expected:
            problems.append(f"{file} has other contents than were written")
    return problems


def _is_digest(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"bytes", "sha256"}
        and type(value["bytes"]) is int
        and isinstance(value["sha256"], str)
    )


def _digest(path: Path) -> dict[str, Any]:
    with open_file(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def reason_of(error: BaseException) -> str:
    """Why files could not be read or written, in words: what the operating system said first, and
    otherwise the first line of the error. Libraries wrap the one into the other."""
    seen: BaseException | None = error
    while seen is not None:
        if is_unreachable(seen):
            return str(seen)
        if isinstance(seen, OSError) and seen.strerror:
            why = _plain(seen.errno, seen.strerror)
            return why + (f" ({seen.filename})" if seen.filename else "")
        seen = seen.__cause__ or seen.__context__
    number = _number_in(str(error))
    if number is not None:
        return _plain(number, os.strerror(number))
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _plain(number: int | None, otherwise: str) -> str:
    return _REASONS[number][0] if number in NEVER_OF_READING else otherwise
