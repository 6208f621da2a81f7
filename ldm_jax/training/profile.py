"""A trace of some training steps, which xprof and TensorBoard show."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from ldm_jax.core.output import say
from ldm_jax.workdir.layout import PROFILE


class Profile:
    """Traces `count` steps from `first` on into WORKDIR/profile; use it as a context manager."""

    def __init__(self, workdir: Path, steps: tuple[int, int] | None) -> None:
        self._folder = workdir / PROFILE
        self._first, count = steps or (0, 0)
        self._last = self._first + count - 1
        self._tracing, self._begun = False, False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, exception: object, *more: object) -> None:
        self._end()
        if self._first and not self._begun and exception is None and jax.process_index() == 0:
            say(f"nothing was profiled: step {self._first} was done before")

    def before(self, step: int) -> None:
        """Begins where `step` is the first."""
        if step == self._first:
            self._begun = True
            with self._dispensable():
                jax.profiler.start_trace(str(self._folder))
                self._tracing = True

    def after(self, step: int, result: Any) -> None:
        """Ends once the devices have the `result` of the last one."""
        if self._tracing and step >= self._last:
            jax.block_until_ready(result)
            self._end()

    def _end(self) -> None:
        if self._tracing:
            self._tracing = False
            with self._dispensable():
                jax.profiler.stop_trace()
                self._tell()

    def _tell(self) -> None:
        if jax.process_index() == 0:
            say(
                f"profile of steps {self._first} to {self._last} in {self._folder}; to look at it: "
                f"pip install xprof && xprof --logdir={self._folder}"
            )

    @contextlib.contextmanager
    def _dispensable(self) -> Iterator[None]:
        """Says what keeps a trace from being written, to a full disk for one; the run goes on."""
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = f"{error}".partition("\n")[0]
            say(f"no profile could be written to {self._folder}: {reason}; the run goes on")
