"""Files that appear complete or not at all, and digests that tell whether they are still intact."""

import hashlib
import json
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ldm_jax.core.reading import open_file, read_json, shown

DIGESTS = "digests.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside `path`, flushes to disk, and renames; leaves nothing behind if that fails.

    Raises:
        OSError: names `path`, also where a disk is full.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Refuses, before any work is done, a folder that cannot be written into later.

    Raises:
        NotADirectoryError, PermissionError: names what stands in the way.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = "a file" if existing.exists() else "a link that leads nowhere"
        raise NotADirectoryError(f"{folder} cannot be made: {existing} is {what}")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} cannot be written into")


def write_digests(directory: Path, besides: Collection[str] = ()) -> None:
    """Notes size and SHA-256 of every file below `directory` in its `digests.json`.

    Files named as in `besides`, which may still change, are left out.
    """
    names = [
        str(path.relative_to(directory))
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in {DIGESTS, *besides}
    ]
    content = json.dumps(digests(directory, names), indent=1)
    write_atomically(directory / DIGESTS, content.encode())


def damage(
    directory: Path, covered: Collection[str] = (), besides: Collection[str] = ()
) -> list[str]:
    """What is wrong with the files that `write_digests` noted, in words; [] if nothing is.

    Each of the subfolders `covered` must have files, and all of them must have been noted, but for
    hidden ones and those named as in `besides`.
    """
    path = directory / DIGESTS
    if not path.is_file():
        return [f"{path} is missing"]
    try:
        noted = read_json(path)
    except ValueError as error:
        return [f"{path} cannot be read ({error})"]
    problems = [
        f"{file} is no regular file"
        for file in sorted(directory.rglob("*"))
        if not (file.is_file() or file.is_dir())
    ]
    for folder in covered:
        if not any(name.startswith(f"{folder}/") for name in noted):
            problems.append(f"{path} notes no file of {folder}")
        names = [
            str(file.relative_to(directory))
            for file in sorted((directory / folder).rglob("*"))
            if file.is_file() and file.name not in besides and not file.name.startswith(".")
        ]
        problems += [f"{path} does not note {name}" for name in names if name not in noted]
    return problems + changes(directory, noted, str(path))


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
            there = os.path.lexists(file)
            problems.append(f"{file} is {'no regular file' if there else 'missing'}")
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
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": digest}


def reason_of(error: BaseException) -> str:
    """Why files could not be read or written, in words: what the operating system said first, and
    otherwise the first line of the error. Libraries wrap the one into the other."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror + (f" ({seen.filename})" if seen.filename else "")
        seen = seen.__cause__ or seen.__context__
    # As TensorStore has it, which writes checkpoints.
    found = re.search(r"os_error_code='(\d+)'|OS error (\d+)", str(error))
    if found:
        return os.strerror(int(found[1] or found[2]))
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
