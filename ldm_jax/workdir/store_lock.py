"""One run at a time in a work directory in a store.

The object `lock` is put there only where there is none, and says whose it is. Its holder writes it
anew every few seconds, so that one which stays the same is that of a run that has died. Stores have
no other locks: two runs that find a dead one's at the same moment both write theirs, and whose
remains goes on.
"""

import contextlib
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ldm_jax.core.files import NotWritable
from ldm_jax.core.output import say
from ldm_jax.core.signals import at_end
from ldm_jax.core.stores import known_to_orbax
from ldm_jax.workdir.layout import LOCK
from ldm_jax.workdir.owner import in_words, owner_of, refusal, this_run

RENEWED_EVERY_SECONDS = 15.0
SILENT_FOR_SECONDS = 60.0
SETTLED_AFTER_SECONDS = 2.0
"""When whoever saw the lock silent too has written his own."""


@contextlib.contextmanager
def locked_in_store(workdir: Path) -> Iterator[None]:
    """Keeps other runs out of `workdir`.

    Raises:
        Locked: a run is in it.
        NotWritable: several processes do not write to such a store, or there is no such bucket.
        OSError: the store cannot be reached, or written to.
    """
    if jax.process_count() > 1 and not known_to_orbax(workdir):
        raise NotWritable(
            f"--workdir={workdir}: of stores, several processes write checkpoints to gs:// alone; "
            "name such a one, or a folder that they share, or start one process for all devices of "
            "a machine"
        )
    path = workdir / LOCK
    run = this_run() | {"machine": _machine(), "token": uuid.uuid4().hex}
    try:
        _take(path, run)
    except FileNotFoundError as error:
        raise NotWritable(f"--workdir={workdir}: there is no such bucket; make it") from error
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(path, run, over), daemon=True)
    renewing.start()
    try:
        with at_end(lambda: _release(path, run)):
            yield
    finally:
        over.set()
        renewing.join()
        _release(path, run)


def _take(path: Path, run: dict[str, Any]) -> None:
    """Makes the lock be that of `run`."""
    while True:
        try:
            path.create(_content(run, 0))
            return
        except FileExistsError:
            if _check_silent(path):
                break
    path.write_bytes(_content(run, 0))
    time.sleep(SETTLED_AFTER_SECONDS)
    holder = owner_of(path)
    if holder.get("token") != run["token"]:
        raise refusal(path, holder)


def _check_silent(path: Path) -> bool:
    """Whether the lock is that of a run that has died; False where it goes away. Waits for a sign
    of life, and raises Locked if it comes."""
    holder = owner_of(path)
    if holder.get("machine") == _machine() and not _lives(holder.get("process")):
        return True
    say(f"{path} is held by {in_words(holder)}; waiting {SILENT_FOR_SECONDS:.0f} s to see if it is "
        "alive")  # fmt: skip
    deadline = time.monotonic() + SILENT_FOR_SECONDS
    while time.monotonic() < deadline:
        time.sleep(SILENT_FOR_SECONDS / 10)
        now = owner_of(path)
        if not now and not path.exists():
            return False
        if now != holder:
            raise refusal(path, now)
    return True


def _machine() -> str:
    """What is the same where numbers of processes mean the same."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return uuid.uuid4().hex


def _lives(process: Any) -> bool:
    if not isinstance(process, int) or process == os.getpid():
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _renew(path: Path, run: dict[str, Any], over: threading.Event) -> None:
    beat = 0
    while not over.wait(RENEWED_EVERY_SECONDS):
        with contextlib.suppress(OSError):
            beat += 1
            holder = owner_of(path)
            if holder.get("token") not in (None, run["token"]):
                say(f"{path} was taken over by {in_words(holder)}; end one of the two runs")
                return
            path.write_bytes(_content(run, beat))


def _release(path: Path, run: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        if owner_of(path).get("token") == run["token"]:
            path.unlink(missing_ok=True)


def _content(run: dict[str, Any], beat: int) -> bytes:
    return json.dumps(run | {"beat": beat}).encode()
