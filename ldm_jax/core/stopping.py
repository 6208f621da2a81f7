"""When a run stops before its end: after a signal, or so many hours; all of its processes after the
same step.

No process waits for another at each step. One that is to stop says so in the store of JAX's
coordinator. A thread of each process then holds its own loop back, tells how far it has come, and
hears how far the others have: they stop after the step that follows the furthest. A loop that waits
for a device cannot be held back and need not be: its thread tells of the step that it last ended,
and none goes further than one beyond that before the thread lets go.
"""

import contextlib
import itertools
import threading
import time
from typing import Any, Protocol, runtime_checkable

from ldm_jax.core import signals
from ldm_jax.core.command import Failed

LOOK_SECONDS = 1.0
"""How often a process looks whether another one is to stop."""
ANSWER_SECONDS = 60.0
"""How long all may take to tell how far they have come."""
_runs = itertools.count()
"""Numbers the runs of this process, as all processes of a run do, so that none reads what an
earlier one left in the store."""


@runtime_checkable
class Store(Protocol):
    """What processes share: the client of JAX's coordinator, or what is like it."""

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = ...) -> None: ...

    def key_value_try_get(self, key: str) -> str: ...

    def blocking_key_value_get(self, key: str, timeout_in_ms: int) -> str: ...


class Stopping:
    """Says after which step a run of one process stops, and why."""

    def __init__(self, stop: signals.Stop, max_hours: float | None) -> None:
        self._stop, self._hours = stop, max_hours

    def after(self, step: int) -> str | None:
        """Why the run stops after `step`, in words; None where it goes on."""
        return self.asked()

    def asked(self) -> str | None:
        """Why this process is to stop; None where it is not."""
        if self._stop.signal is not None:
            return f"stopped by {signals.name_of(self._stop.signal)}"
        passed = time.monotonic() - signals.STARTED
        if self._hours is not None and passed >= self._hours * 3600:
            return f"stopped after {self._hours:g} hours (loop.max_hours)"
        return None

    def close(self) -> None:
        """Ends what looks for others."""


class StoppingTogether(Stopping):
    """The same of one of several processes, which all answer alike."""

    def __init__(
        self, stop: signals.Stop, max_hours: float | None, store: Store, index: int, count: int
    ) -> None:
        super().__init__(stop, max_hours)
        self._store, self._index, self._count = store, index, count
        self._keys = f"ldm_jax/stop/{next(_runs)}"
        self._held = threading.Lock()
        self._done = 0
        self._last: tuple[int, str] | None = None
        self._error: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def after(self, step: int) -> str | None:
        """As of one process. Raises Failed where the others do not answer."""
        with self._held:
            self._done = step
            if self._error is not None:
                raise Failed(
                    f"the processes of this run could not agree on where to stop: {self._error}"
                )
            last, why = self._last or (step + 1, "")
        return why if step >= last else None

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        with contextlib.suppress(Exception):  # others may still ask how far this one came
            self._store.key_value_set(self._step_of(self._index), str(self._done))

    def _step_of(self, process: int) -> str:
        return f"{self._keys}/step/{process}"

    def _look(self) -> None:
        while not self._over.wait(LOOK_SECONDS):
            why = self._why()
            if why is None:
                continue
            with self._held:
                try:
                    self._last = self._agree(), why
                except Exception as error:  # whatever the store raises, of any type
                    self._error = error
            return

    def _why(self) -> str | None:
        """Why this process or another one is to stop."""
        own = self.asked()
        if own is not None:
            with contextlib.suppress(Exception):  # another one was first
                self._store.key_value_set(f"{self._keys}/why", own)
        try:
            return self._store.key_value_try_get(f"{self._keys}/why")
        except Exception:  # there is none, or no store any more, which others find out
            return None

    def _agree(self) -> int:
        """The step after the furthest that a process has ended."""
        self._store.key_value_set(self._step_of(self._index), str(self._done))
        wait = int(1000 * ANSWER_SECONDS)
        told = [
            self._store.blocking_key_value_get(self._step_of(other), wait)
            for other in range(self._count)
        ]
        return max(map(int, told)) + 1


def stopping(stop: signals.Stop, max_hours: float | None) -> Stopping:
    """For this process of however many JAX has."""
    import jax

    if jax.process_count() == 1:
        return Stopping(stop, max_hours)
    # The store has no public name; orbax and others use this one.
    from jax._src.distributed import global_state

    store: Any = global_state.client
    return StoppingTogether(stop, max_hours, store, jax.process_index(), jax.process_count())
