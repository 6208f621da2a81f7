"""Files that appear complete or not at all, and digests that tell whether they are still intact."""

import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

DIGESTS = "digests.json"


def write_atomically(path: Path, content: bytes) -> None:
    """Writes beside `path`, flushes to disk, and renames; leaves nothing behind if that fails."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
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
    digests = {
        str(path.relative_to(directory)): _digest(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name not in {DIGESTS, *besides}
    }
    write_atomically(directory / DIGESTS, json.dumps(digests, indent=1).encode())


def damage(directory: Path) -> list[str]:
    """What is wrong with the files that `write_digests` noted, in words; [] if nothing is."""
    path = directory / DIGESTS
    if not path.is_file():
        return [f"{path} is missing"]
    try:
        digests = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        return [f"{path} cannot be read ({error})"]
    problems = []
    for name, expected in digests.items():
        file = directory / name
        if not file.is_file():
            problems.append(f"{file} is missing")
        elif file.stat().st_size != expected["bytes"]:
            size = file.stat().st_size
            problems.append(f"{file} has {size} bytes instead of {expected['bytes']}")
        elif _digest(file) != expected:
            problems.append(f"{file} has other contents than were written")
    return problems


def _digest(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}
