"""SIGINT and SIGTERM: they end a command at once, or ask it to save first.

It imports nothing but Python's own library, so that a command is ready for Ctrl-C at once. A
thread of its own takes the signals, since the main thread may stand in compiled code for minutes
or wait for something that never comes.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from ldm_jax.core.command import INTERRUPTED, say

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass
class Stop:
    """Whether a signal has asked to stop, and which."""

    signal: int | None = None


_asked_first: list[Stop] = []
_ending = threading.Event()
"""Set while `end_at_once` is in charge."""


def name_of(number: int) -> str:
    """A signal's name, such as "SIGTERM"."""
    return signal.Signals(number).name


@contextlib.contextmanager
def end_at_once(program: str) -> Iterator[None]:
    """A signal ends the process at once and with one line, but for the first one in `ask_first`.

    Nothing is cleaned up: what is written must be whole or have another name at any time. Only
    for commands, and in the main thread; elsewhere it changes nothing.
    """
    if threading.current_thread() is not threading.main_thread() or _ending.is_set():
        yield
        return
    reading, writing = socket.socketpair()
    writing.setblocking(False)
    before = signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
    # Python passes on only the signals for which it has handlers.
    previous = {number: signal.signal(number, _ignore) for number in SIGNALS}
    _ending.set()
    watcher = threading.Thread(target=_watch, args=(program, reading), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        _ending.clear()
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        writing.close()
        watcher.join()
        reading.close()


@contextlib.contextmanager
def ask_first() -> Iterator[Stop]:
    """The first signal is noted in what this yields; a second one acts as usual."""
    stop = Stop()
    _asked_first.append(stop)
    previous = {}

    def note(number: int, frame: object) -> None:
        stop.signal = number
        signal.signal(number, previous[number])

    if not _ending.is_set() and threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop
    finally:
        _asked_first.remove(stop)
        for number, handler in previous.items():
            signal.signal(number, handler)


def end(status: int) -> None:
    """Ends the process without waiting for its threads, and the processes that it started."""
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _ignore(number: int, frame: object) -> None:
    pass


def _hold() -> None:
    if _ending.is_set():
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _release() -> None:
    if _ending.is_set():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget() -> None:
    """In a forked process, which would write its signals into the socket of its parent."""
    if _ending.is_set():
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    _release()


os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget)


def _watch(program: str, signals: socket.socket) -> None:
    while content := signals.recv(1):
        number = content[0]
        if number not in SIGNALS:
            continue
        stop = _asked_first[-1] if _asked_first else None
        if stop is not None and stop.signal is None:
            stop.signal = number
            say(
                f"{program}: {name_of(number)}; saving after this step. Once more ends at once, "
                "without saving"
            )
            continue
        lost = "" if stop is None else "; what was not saved is lost"
        say(f"{program}: interrupted by {name_of(number)}{lost}")
        end(INTERRUPTED)
