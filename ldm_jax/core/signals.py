"""SIGINT and SIGTERM: they end a command at once, or ask it to save first.

It imports little of Python's own library alone, so that a command is ready for Ctrl-C at once. A
thread of its own takes the signals: the main thread may stand in compiled code for minutes or wait
for something that never comes, and an exception in it could be swallowed, as Python does with one
in a callback of its garbage collector.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator

from ldm_jax.core.output import say

STARTED = time.monotonic()
"""When this process began, or nearly so: commands import this first."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
INTERRUPTED = 130
"""SIGINT (Ctrl-C) or SIGTERM; nothing was lost that was finished before."""
SAME_REQUEST_SECONDS = 1.0
"""Signals that follow one within that time say the same once more: `timeout` signals a process
and then its whole group."""
FLUSH_SECONDS = 1.0
"""How long output may take that nobody reads any more."""


class Stop:
    """Whether a signal has asked to stop, and which."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.noted = 0.0
        """When, in seconds of the monotonic clock."""

    def note(self, number: int) -> None:
        """Notes the first signal."""
        self.signal, self.noted = number, time.monotonic()

    def repeated(self) -> bool:
        """Whether a signal that comes now belongs to the one noted."""
        return self.signal is not None and time.monotonic() - self.noted < SAME_REQUEST_SECONDS


_asked_first: list[Stop] = []
_at_end: list[Callable[[], str | None]] = []
_handling = threading.Event()
"""Set while signals are handled here."""
_ending = Stop()
"""The signal that is ending this process."""
_finished: list[int] = []
"""The status of a command that has done its work, while Python ends."""
_undisturbed = threading.RLock()
_inside = threading.local()
"""Of each thread the `depth` in which it is undisturbed."""


def name_of(number: int) -> str:
    """A signal's name, such as "SIGTERM"."""
    return signal.Signals(number).name


@contextlib.contextmanager
def end_at_once(program: str) -> Iterator[None]:
    """A signal ends the process at once and with one line, but for the first one in `ask_first`.

    What `at_end` names is done before, and nothing else: what is written must be whole or have
    another name at any time. Only for commands, and in the main thread; elsewhere it changes
    nothing.
    """
    if threading.current_thread() is not threading.main_thread() or _handling.is_set():
        yield
        return
    handling = _Handling(program)
    try:
        yield
    finally:
        wait_if_ending()
        handling.stop()


def stay(program: str) -> None:
    """As `end_at_once`, until the process has ended, for a process that is a command.

    Python's end takes a while and is no moment for an exception.
    """
    if _handling.is_set():
        return
    _Handling(program)
    # What is registered first is run last. Python then takes itself apart, and gives the signals
    # that are handled back to the operating system, in whose hands they would kill it.
    atexit.register(_ignore_all)


class _Handling:
    """Signals go through a pipe to a thread."""

    def __init__(self, program: str) -> None:
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        # Python passes on only the signals for which it has handlers.
        self._previous = {number: signal.signal(number, _ignore) for number in SIGNALS}
        _handling.set()
        arguments = (program, self._reading)
        self._watcher = threading.Thread(target=_watch, args=arguments, daemon=True)
        self._watcher.start()

    def stop(self) -> None:
        """Gives the signals back."""
        _handling.clear()
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._before)
        os.close(self._writing)
        self._watcher.join()
        os.close(self._reading)


def finish(status: int) -> None:
    """Says that the command has done its work: a signal ends it with this status now."""
    _finished.append(status)


@contextlib.contextmanager
def ask_first() -> Iterator[Stop]:
    """The first signal is noted in what this yields; a second one acts as usual.

    One that follows the first within `SAME_REQUEST_SECONDS` is no second one.
    """
    stop = Stop()
    _asked_first.append(stop)
    previous = {}

    def note(number: int, frame: object) -> None:
        if stop.signal is None:
            stop.note(number)
        elif not stop.repeated():
            signal.signal(number, previous[number])
            signal.raise_signal(number)

    if not _handling.is_set() and threading.current_thread() is threading.main_thread():
        previous = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield stop
    finally:
        _asked_first.remove(stop)
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def at_end(action: Callable[[], str | None]) -> Iterator[None]:
    """Where a signal ends the command inside, `action` is run first, in another thread, and what it
    returns is said.

    Of several actions the outermost is run first, and the innermost that returns something says
    it. Of what the main thread does they interrupt nothing that is `undisturbed`.
    """
    _at_end.append(action)
    try:
        yield
    finally:
        wait_if_ending()
        _at_end.remove(action)


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """What is done inside, and should take no longer than a small file, is done wholly before a
    signal ends the command, or not begun."""
    wait_if_ending()
    with _undisturbed:
        _inside.depth = getattr(_inside, "depth", 0) + 1
        try:
            yield
        finally:
            _inside.depth -= 1


def end(status: int) -> None:
    """Ends the process without waiting for its threads, and the processes that it started."""
    # Who has started processes has imported what knows them.
    if processes := sys.modules.get("multiprocessing"):
        for child in processes.active_children():
            child.kill()
    for stream in (sys.stdout, sys.stderr):
        _for_a_moment(lambda stream=stream: _flush(stream))
    os._exit(status)


def _flush(stream: object) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):
        stream.flush()


def _for_a_moment(action: Callable[[], None]) -> None:
    """Runs what may wait for a reader of our output that has stopped to read, but not for long."""
    thread = threading.Thread(target=action, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # Python is ending
        return
    thread.join(FLUSH_SECONDS)


def wait_if_ending() -> None:
    """A thread has nothing more to say or do once a signal ends the process, but to end what is
    `undisturbed`."""
    if _ending.signal is not None and not getattr(_inside, "depth", 0):
        threading.Event().wait()


def _ignore_all() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _ignore(number: int, frame: object) -> None:
    pass


def _hold() -> None:
    if _handling.is_set():
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _release() -> None:
    if _handling.is_set():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _forget() -> None:
    """In a forked process, which would write its signals into the pipe of its parent."""
    global _undisturbed
    _undisturbed = threading.RLock()  # its holder may be a thread that is not here
    if _handling.is_set():
        signal.set_wakeup_fd(-1)
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
    _release()


os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_forget)


def _watch(program: str, signals: int) -> None:
    while content := os.read(signals, 1):
        number = content[0]
        if number not in SIGNALS:
            continue
        if _finished:
            end(_finished[0])
        stop = _asked_first[-1] if _asked_first else Stop()
        if stop.repeated() or _ending.repeated():
            continue
        if _ending.signal is not None:  # what it does first takes too long for whoever waits
            os._exit(INTERRUPTED)
        if _asked_first and stop.signal is None:
            stop.note(number)
            # A bar or ^C may stand on the line of a terminal.
            start = "\n" if sys.stderr.isatty() else ""
            say(
                f"{start}{program}: {name_of(number)}: stopping after this step, then saving; "
                "once more ends without saving"
            )
            continue
        _ending.note(number)
        threading.Thread(target=_end, args=(program, number), daemon=True).start()


def _end(program: str, number: int) -> None:
    lost = "what was not saved is lost" if _asked_first else None
    _inside.depth = 1  # this thread alone goes on
    with _undisturbed:  # and for good: the process ends in here
        done: list[Callable[[], str | None]] = []
        words = None
        while action := next((one for one in [*_at_end] if one not in done), None):
            done.append(action)
            try:
                words = action() or words
            except Exception as error:
                words = str(error)
        said = [f"{program}: interrupted by {name_of(number)}", lost, words]
        # Into no stream that somebody may have put in stderr's place.
        _for_a_moment(lambda: say("; ".join(filter(None, said)), sys.__stderr__))
        end(INTERRUPTED)
