"""Runs of several processes: how they start, agree, and end together.

JAX itself notices a process that died only after minutes, and then aborts the others with a dump.
Here each process tells process 0 every few seconds that it lives, and why it ends if it does not
end as planned; the others then end with that sentence. Once process 0 itself has died, JAX aborts
the others at once, with a dump; they say a sentence after it.
"""

import contextlib
import ctypes
import errno
import itertools
import math
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from ldm_jax.core.cluster import START_SECONDS, Place
from ldm_jax.core.command import FAILED, SAVED, say, told
from ldm_jax.core.reading import printable
from ldm_jax.core.signals import end

BEAT_SECONDS = 2.0
DEAD_AFTER_SECONDS = 30.0
JAX_DEAD_AFTER_SECONDS = 900
"""When JAX gives up, which counts the time too in which all machines were stopped."""
GRACE_SECONDS = 3.0
"""How long a process may take to say itself why it ends, once another has."""
LONGEST_SECONDS = 7 * 24 * 3600.0
"""How long processes that are alive wait for each other on the way."""
_waits = itertools.count()
"""Numbers the times that all processes have waited for each other."""
_told_alone: dict[str, str] = {}
"""What a process without others has told itself."""
_TEXT_BYTES = 1024
_FAILED, _ALIVE, _TOLD = "ldm_jax/failed", "ldm_jax/alive", "ldm_jax/told"
_GONE = "gone"
_NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)
_BROKEN_COLLECTIVE = re.compile(
    "(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION): |"
    "an error nobody foresaw, (XlaRuntimeError|JaxRuntimeError|BarrierTimeoutError): "
)
"""How errors of a computation that needs all processes begin, whatever their type."""


@contextlib.contextmanager
def together(program: str, place: Place) -> Iterator[None]:
    """Starts this process as one of several, and ends it with the others.

    An error in the block is said by the process that has it, and ends all of them. A process that
    is alone, or does not speak with others, just goes on.

    Raises:
        ValueError: the others cannot be reached.
    """
    if place.coordinator is None:
        _show_own_devices(place)
        yield
        return
    _connect(place)
    if place.index:
        _abort_later()
    peers = _Peers(program, place)
    peers.start()
    try:
        yield
    except Exception as error:
        status, text = told(error)
        if status == SAVED:  # all of them stop
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        peers.end_all(status, text)
    finally:
        peers.stop()


def _show_own_devices(place: Place) -> None:
    if place.devices is not None:
        import jax

        shown = ",".join(map(str, place.devices))
        jax.config.update("jax_cuda_visible_devices", shown)
        jax.config.update("jax_rocm_visible_devices", shown)


def _connect(place: Place) -> None:
    import jax

    # JAX would take SIGTERM for itself, and nobody else would hear of it.
    jax.config.update("jax_enable_preemption_service", False)
    if place.found and place.index == 0:
        say(f"found {place.found} of {place.count} processes")
    try:
        jax.distributed.initialize(
            place.coordinator, place.count, place.index, place.devices,
            cluster_detection_method="deactivate", initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=JAX_DEAD_AFTER_SECONDS,
        )  # fmt: skip
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"process {place.index} of {place.count} could not reach the others at "
            f"{place.coordinator} within {START_SECONDS} s ({reason}); check that all were started "
            "and that process 0's machine lets them in at this port"
            + ("; --single runs this process alone" if place.found else "")
        ) from error


def _abort_later() -> None:
    """Lets this process live for `signal.SIGABRT` seconds, which are six, once it is aborted.

    JAX aborts it with a dump in the moment in which process 0 has died, before a word of ours could
    be said, and takes no callback of Python's instead. Now the thread that does so sleeps first:
    the handler is C's own `sleep`, which is called with the number of the signal.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), None
    library.signal(signal.SIGABRT, ctypes.cast(library.sleep, ctypes.c_void_p))


def wait_for_all(name: str) -> None:
    """Returns once all processes have come here; they do so in the same order.

    None of their devices waits, which would give up after a while.
    """
    import jax

    if jax.process_count() == 1:
        return
    barrier = f"ldm_jax/wait/{next(_waits)} ({name})"
    _store().wait_at_barrier(barrier, int(1000 * LONGEST_SECONDS))


def _store() -> Any:
    """The key-value store of JAX's coordinator."""
    # It has no public name; orbax and others use this one.
    from jax._src.distributed import global_state

    return global_state.client


def tell_first(name: str, text: str) -> None:
    """Tells process 0 something, which may be done in any thread; see `told_to_first`."""
    import jax

    if jax.process_count() == 1:
        _told_alone[name] = text
        return
    store = _store()
    store.key_value_set(f"{_TOLD}/{name}/{jax.process_index()}", text, allow_overwrite=True)


def told_to_first(name: str) -> list[str]:
    """What all processes have told process 0 under this name, once; it must know that they did."""
    import jax

    if jax.process_count() == 1:
        return [_told_alone.pop(name)]
    store, prefix = _store(), f"{_TOLD}/{name}/"
    texts = [text for _, text in store.key_value_dir_get(prefix)]
    store.key_value_delete(prefix)
    return texts


def found_by_first(look: Callable[[], list[str]]) -> str:
    """As `found_together`, where process 0 alone looks."""
    return found_together(lambda index, count: look() if index == 0 else [])


def found_together(look: Callable[[int, int], list[str]]) -> str:
    """What the processes find, in words for all of them; "" if none finds anything.

    Args:
        look: what is wrong, in words, in the share (index, count) of a process.

    Raises:
        ValueError, OSError: what `look` raises, in that process.
    """
    import jax

    problems: list[str] = []
    error = None
    index, count = jax.process_index(), jax.process_count()
    try:
        problems = look(index, count)
    except (ValueError, OSError) as raised:
        error = raised
        problems = [f"process {index} says what"]
    found = [text for text in _texts_of_all("; ".join(problems[:8])) if text]
    if error is not None:
        raise error
    return "; ".join(found[:8])


def _texts_of_all(text: str) -> list[str]:
    """The text of each process, in their order, cut after `_TEXT_BYTES`."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return [text]
    own = np.zeros(_TEXT_BYTES, np.uint8)
    content = np.frombuffer(text.encode()[:_TEXT_BYTES], np.uint8)
    own[: content.size] = content
    wait_for_all("what was found")
    gathered = np.asarray(multihost_utils.process_allgather(own))
    return [bytes(one).rstrip(b"\0").decode(errors="ignore") for one in gathered]


class _Peers:
    """What the processes of a run tell each other, in the key-value store of JAX's coordinator.

    Ends the process, in a thread of its own, when another one has failed.
    """

    def __init__(self, program: str, place: Place) -> None:
        self._store = _store()
        self._program, self._count, self._index = program, place.count, place.index
        self._coordinator = place.coordinator or ""
        self._over, self._done = threading.Event(), threading.Event()
        watching = [self._watch, self._watch_first] if self._index else [self._watch]
        self._threads = [threading.Thread(target=one, daemon=True) for one in watching]
        self._beat = 0
        self._heard = {other: ("", 0) for other in range(place.count)}
        """Of each process its last beat, and the own one at which it came."""

    def start(self) -> None:
        """Begins to tell and to listen."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends both; this process has come to its end as planned."""
        self._over.set()
        self._threads[0].join()
        self._done.set()
        for thread in self._threads:
            thread.join()
        self._tell(f"{_ALIVE}/{self._index}", _GONE)

    def end_all(self, status: int, text: str) -> None:
        """Says why this process fails, tells the others, and ends this one."""
        self._over.set()
        broken = _BROKEN_COLLECTIVE.match(text)
        if broken and (reason := self._why()):
            self._end(*reason)
        if broken:
            reason = text[broken.end() :].partition("\n")[0][:200]
            status = FAILED
            text = (
                "the processes of this run cannot compute together any more; one of them has "
                f"ended or cannot be reached ({reason})"
            )
        self._tell(f"{_FAILED}/{self._index}", f"{status} {text}")
        say(f"{self._program}: {printable(text)}")
        self._end(status, "")

    def _watch(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            self._beat += 1
            try:
                reason = self._failure() or (self._silence() if self._index == 0 else None)
            except Exception:
                reason = FAILED, "process 0 cannot be reached any more; it has probably died"
            self._tell(f"{_ALIVE}/{self._index}", str(self._beat))
            if reason and not self._over.wait(GRACE_SECONDS):
                self._end(*reason)

    def _watch_first(self) -> None:
        """Ends this process once process 0 is gone, whatever else waits for its store then: calls
        of that wait without end.

        Who is refused has found the machine and no process; anything else may be the network's
        fault for a while.
        """
        host, _, port = self._coordinator.rpartition(":")
        address, unanswered = (host.strip("[]"), int(port)), 0.0
        while not self._done.wait(BEAT_SECONDS):
            try:
                with socket.create_connection(address, BEAT_SECONDS) as connection:
                    address = connection.getpeername()[:2]  # names may cease to be known
                unanswered = 0.0
            except ConnectionRefusedError:
                unanswered = math.inf
            except OSError as error:
                unanswered += error.errno not in _NO_MORE_FILES
            if unanswered * BEAT_SECONDS >= DEAD_AFTER_SECONDS:
                say(f"{self._program}: process 0 has died: nobody answers at {self._coordinator} "
                    "any more")  # fmt: skip
                end(FAILED)

    def _why(self) -> tuple[int, str] | None:
        """What another process told of its end, if it does so soon."""
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                if reason := self._failure():
                    return reason
            time.sleep(BEAT_SECONDS / 4)
        return None

    def _failure(self) -> tuple[int, str] | None:
        """Status and words of a process that failed."""
        for key, value in self._store.key_value_dir_get(_FAILED):
            status, _, text = value.partition(" ")
            return int(status), f"process {key.rpartition('/')[2]} ended: {text}"
        return None

    def _silence(self) -> tuple[int, str] | None:
        """A process that has not been heard of for too long, of the time in which this one was
        not stopped itself."""
        beats = {
            int(key.rpartition("/")[2]): value
            for key, value in self._store.key_value_dir_get(_ALIVE)
        }
        for other, (last, since) in self._heard.items():
            beat = beats.get(other, "")
            if beat != last:
                self._heard[other] = beat, self._beat
            elif beat != _GONE and (self._beat - since) * BEAT_SECONDS > DEAD_AFTER_SECONDS:
                text = f"not heard of for {DEAD_AFTER_SECONDS:.0f} s; it has probably died"
                self._tell(f"{_FAILED}/{other}", f"{FAILED} {text}")
                return FAILED, f"process {other} ended: {text}"
        return None

    def _end(self, status: int, text: str) -> None:
        """Ends this process; the store goes with process 0, which therefore waits for the rest."""
        if text:
            say(f"{self._program}: {printable(text)}")
        self._tell(f"{_ALIVE}/{self._index}", _GONE)
        deadline = time.monotonic() + 2 * (BEAT_SECONDS + GRACE_SECONDS)
        while self._index == 0 and time.monotonic() < deadline:
            with contextlib.suppress(Exception):
                states = [value for _, value in self._store.key_value_dir_get(_ALIVE)]
                if states.count(_GONE) == self._count:
                    break
            time.sleep(BEAT_SECONDS / 4)
        end(status)

    def _tell(self, key: str, value: str) -> None:
        with contextlib.suppress(Exception):
            self._store.key_value_set(key, value, allow_overwrite=True)
