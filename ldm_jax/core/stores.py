"""Paths that users name: of this machine, or in an object store (`gs://…`, `s3://…`).

A path in a store is a `pathlib.Path` too, a `StorePath`; what only a file system has (links, locks,
renaming, files that grow, maps into memory) it does not have.
"""

import argparse
import importlib.util
import os
import re
from pathlib import Path
from typing import Any

NEEDS = {"gs": ("gcsfs", "gcs"), "s3": ("s3fs", "s3")}
"""Of each scheme the library that opens it, and the extra of this project that brings it."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


class NoStore(ValueError, argparse.ArgumentTypeError):
    """A path of a scheme that cannot be opened; names it, and what to do.

    Of argparse's kind too, which would not say why another error was raised.
    """


class Unreachable(OSError):
    """A store that does not do what it was asked; the text names the path and says all."""


def as_path(named: str | os.PathLike[str]) -> Path:
    """The path that `named` is; nothing is asked of a store.

    Raises:
        NoStore: its scheme is not known, or what opens it is not installed.
    """
    if isinstance(named, Path):
        return named
    text = os.fspath(named)
    found = _SCHEME.match(text)
    if found is None:
        return Path(text)
    scheme = found[1]
    if scheme not in NEEDS:
        known = " or ".join(f"{one}://" for one in NEEDS)
        raise NoStore(f"{text}: {scheme}:// cannot be opened; name a local path, or {known}")
    library, extra = NEEDS[scheme]
    if importlib.util.find_spec(library) is None:
        raise NoStore(
            f"{text}: {scheme}:// needs {library}, which is not installed; "
            f"pip install 'ldm_jax[{extra}]'"
        )
    if not text[found.end() :].strip("/"):
        raise NoStore(f"{text} names no bucket; it must be {scheme}://BUCKET/FOLDER")
    if ".." in text.split("/"):
        # Who reads and writes there would not agree on what that is.
        raise NoStore(f"{text}: stores know no `..`; name the path without it")
    from ldm_jax.core.store_path import StorePath  # slow to import

    return StorePath(text)


def local_path(named: str | os.PathLike[str], what: str) -> Path:
    """As `as_path`, for `what` is on this machine only.

    Raises:
        NoStore: also where it lies in a store.
    """
    path = as_path(named)
    if is_stored(path):
        raise NoStore(f"{path}: {what} must lie on this machine; copy them, and name that folder")
    return path


def is_stored(path: Any) -> bool:
    """Whether `path` is a path in a store."""
    return isinstance(path, Path) and bool(_SCHEME.match(str(path)))


def known_to_orbax(path: Path) -> bool:
    """Whether orbax reads and writes checkpoints there by itself: in folders and gs://."""
    return not is_stored(path) or str(path).startswith("gs://")


def there(path: Path) -> bool:
    """Whether there is something of that name, be it a link that leads nowhere."""
    return path.exists() if is_stored(path) else os.path.lexists(path)


def names_in(folder: Path) -> list[str]:
    """The names of what lies in a folder, in any order."""
    return [one.name for one in folder.iterdir()] if is_stored(folder) else os.listdir(folder)


def is_unreachable(error: BaseException) -> bool:
    """Whether it is a store that cannot be reached, of which the text says all."""
    return isinstance(error, Unreachable)


def local_copy(path: Path) -> Path:
    """`path`, or of a file in a store its copy on this machine: see `StorePath.local_copy`."""
    return path.local_copy() if is_stored(path) else path


def check_copies(folder: Path, otherwise: str) -> None:
    """Refuses a folder in a store whose files are all to be copied to this machine, where there is
    no room for them: see `store_copies.check_room`."""
    if is_stored(folder):
        from ldm_jax.core import store_copies

        store_copies.check_room(folder, folder.size_of_all(), otherwise)


def local_folder(path: Path) -> Path:
    """`path`, or of a folder in a store one on this machine with copies of its files.

    Raises:
        OSError: the store cannot be reached.
    """
    return path.local_folder() if is_stored(path) else path
