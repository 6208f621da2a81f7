"""Copies of objects in stores on this machine, within a limit: those go first that were used
longest ago, and none that a process which is alive has used.

    FOLDER/KEY/NAME     the copy of an object, or of what lies below a name; KEY changes with either
    FOLDER/users/ONE    what a process has used, `KEY BYTES` a line; it holds the file's lock
    FOLDER/lock         whose holder alone looks for room
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ldm_jax.core.stores import Unreachable

VARIABLE = "LDM_JAX_STORE_CACHE_GB"
_GB = 10**9
_threads = threading.Lock()


class NoRoom(Unreachable):
    """Copies that are in use leave no room for another; the text says all."""


def folder() -> Path:
    """Where copies lie: `$XDG_CACHE_HOME/ldm_jax/stores`."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "ldm_jax" / "stores"


def limit() -> int:
    """Bytes of all copies, at most: what `LDM_JAX_STORE_CACHE_GB` says, or half of the disk.

    Raises:
        ValueError: it says no number above 0.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        folder().mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder()).total // 2
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return int(float(text) * _GB)
    raise ValueError(f"{VARIABLE}={text} must be a number of gigabytes above 0")


def check_room(named: Any, size: int, otherwise: str) -> None:
    """Refuses what is copied whole and is larger than all copies may be.

    Args:
        named: where it lies.
        size: of all that a process will use, in bytes.
        otherwise: what can be done instead.

    Raises:
        NoRoom: it is.
    """
    if size > limit():
        raise NoRoom(
            f"{named} has {_told(size)}, which are copied to {folder()}, where {_told(limit())} "
            f"may lie; allow more with {VARIABLE}, {otherwise}"
        )


def copied(told: str, name: str, size: Callable[[], int], fetch: Callable[[Path], None]) -> Path:
    """The copy called `name` of what `told` tells from all others; it is not removed while this
    process lives.

    Args:
        size: of it in bytes, asked for where it is not there.
        fetch: makes it at a path.

    Raises:
        NoRoom: there is none for it.
    """
    key = hashlib.sha256(told.encode()).hexdigest()[:32]
    kept = folder() / key / name
    with _alone():
        _use(key, 0)
        if kept.exists():
            os.utime(kept.parent)
            return kept
    needed = size()
    with _alone():
        _use(key, needed)
        _make_room(f"{name} ({_told(needed)})")
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as drafts:
        fetch(Path(drafts) / name)
        with contextlib.suppress(OSError):  # another process has put a folder there
            os.replace(Path(drafts) / name, kept)
    return kept


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    folder().mkdir(parents=True, exist_ok=True)
    with _threads, (folder() / "lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _own(users: Path) -> tuple[Path, int]:
    """The list of what this process, and those that it is forked into, has used; and what writes
    to it and holds its lock until they end."""
    users.mkdir(exist_ok=True)
    path = users / uuid.uuid4().hex
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    return path, descriptor


def _use(key: str, size: int) -> None:
    _, descriptor = _own(folder() / "users")
    os.write(descriptor, f"{key} {size}\n".encode())


def _in_use() -> dict[str, int]:
    """Keys that living processes have used, with the bytes that they need; lists of others go."""
    (own, _), used = _own(folder() / "users"), {}
    for path in (folder() / "users").iterdir():
        with path.open() as file:
            if path != own and _is_free(file):
                path.unlink(missing_ok=True)
                continue
            for key, size in (line.split() for line in file):
                used[key] = max(used.get(key, 0), int(size))
    return used


def _is_free(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _make_room(wanted: str) -> None:
    """Removes the copies that were used longest ago until all, and those to come, are within the
    limit."""
    used, allowed = _in_use(), limit()
    found = {one.name: one for one in folder().iterdir() if one.is_dir() and one.name != "users"}
    sizes = {key: _size(one) for key, one in found.items()}
    for key, size in used.items():
        sizes[key] = max(sizes.get(key, 0), size)
    unused = sorted(found.keys() - used.keys(), key=lambda key: found[key].stat().st_mtime)
    total = sum(sizes.values())
    for key in unused:
        if total <= allowed:
            return
        shutil.rmtree(found[key], ignore_errors=True)
        total -= sizes[key]
    if total > allowed:
        raise NoRoom(
            f"{wanted} has no room in {folder()}: what is in use needs {_told(total)} with it, and "
            f"{_told(allowed)} may lie there; allow more with {VARIABLE}"
        )


def _size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def _told(size: int) -> str:
    return f"{size / _GB:.3g} GB"
