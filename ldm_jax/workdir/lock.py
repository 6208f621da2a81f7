"""One run at a time in a work directory.

The operating system's lock on the file `lock` decides; it goes when its process ends, however that
ends. The file says whose it is. Where such locks do not reach other machines, which is so on some
network file systems, the file's time decides, which its holder renews every few seconds.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ldm_jax.core.command import say
from ldm_jax.core.files import check_writable
from ldm_jax.core.signals import at_end
from ldm_jax.core.stores import is_stored
from ldm_jax.workdir.layout import LOCK
from ldm_jax.workdir.owner import Locked, in_words, owner_of, refusal, this_run
from ldm_jax.workdir.store_lock import locked_in_store

__all__ = ["Locked", "locked"]

RENEWED_EVERY_SECONDS = 5.0
SILENT_FOR_SECONDS = 20.0
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Makes `workdir` if need be, and keeps other runs out of it.

    Raises:
        Locked: a run is in it.
        NotWritable: it cannot be written to.
    """
    if is_stored(workdir):
        with locked_in_store(workdir):
            yield
        return
    check_writable(workdir, f"--workdir={workdir}")
    made = _missing(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / LOCK
    descriptor = _take(path)
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(descriptor, over), daemon=True)
    renewing.start()
    try:
        with at_end(lambda: path.unlink(missing_ok=True)):
            yield
    finally:
        over.set()
        renewing.join()
        path.unlink(missing_ok=True)
        os.close(descriptor)
        for folder in made:  # a run that was refused leaves nothing
            with contextlib.suppress(OSError):
                folder.rmdir()


def _missing(folder: Path) -> list[Path]:
    """The folders that `folder` needs and that are not there, the innermost first."""
    return [one for one in (folder, *folder.parents) if not one.exists()]


def _take(path: Path) -> int:
    """A descriptor of the file `path` that holds its lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            reaches = _lock(descriptor, path)
            if not _is_at(descriptor, path):  # its holder has just removed it
                os.close(descriptor)
                continue
            owner = owner_of(path)
            foreign = owner.get("host") not in (None, socket.gethostname())
            if owner and (foreign or not reaches):
                _check_silent(path, owner)
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(this_run()).encode(), 0)
            return descriptor
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise


def _lock(descriptor: int, path: Path) -> bool:
    """Takes the operating system's lock; False where the file system has none."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise refusal(path, owner_of(path)) from error
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise OSError(error.errno, error.strerror, str(path)) from error
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _check_silent(path: Path, owner: dict[str, Any]) -> None:
    """Waits for a sign of life of the run that `path` names, on another machine or without locks;
    raises Locked if it comes."""
    say(
        f"{path} is held by {in_words(owner)}; waiting {SILENT_FOR_SECONDS:.0f} s to see if it is "
        "alive"
    )
    before, deadline = path.stat().st_mtime_ns, time.monotonic() + SILENT_FOR_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(1.0, SILENT_FOR_SECONDS / 10))
        if path.stat().st_mtime_ns != before:
            raise refusal(path, owner)


def _renew(descriptor: int, over: threading.Event) -> None:
    while not over.wait(RENEWED_EVERY_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
