"""Whose a lock is: what it says of its run, and the words for that."""

import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from ldm_jax.core.reading import read_json, shown


class Locked(ValueError):
    """Another run is in the work directory; names it."""


def this_run() -> dict[str, Any]:
    """What a lock says of the run of this process."""
    return {
        "host": socket.gethostname(), "process": os.getpid(),
        "since": datetime.now().astimezone().isoformat(timespec="seconds"),
    }  # fmt: skip


def owner_of(path: Path) -> dict[str, Any]:
    """What the file says of the run that holds it, or held it last; {} if it says nothing."""
    try:
        return read_json(path)
    except ValueError:
        return {}


def in_words(owner: dict[str, Any]) -> str:
    """A run, as a lock tells of it."""
    if not owner:
        return "another process"
    host, process, since = (owner.get(name) for name in ("host", "process", "since"))
    number = process if isinstance(process, int) else "?"
    return f"process {number} on {_plain(host)}, there since {_plain(since)}"


def _plain(value: Any) -> str:
    return shown(value).strip("'")


def refusal(path: Path, owner: dict[str, Any]) -> Locked:
    """The error for the lock `path` that another run holds."""
    return Locked(
        f"{path.parent} is being trained in by {in_words(owner)}; wait until that run has "
        "ended, or use another --workdir"
    )
