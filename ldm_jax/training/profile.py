"""A trace of some training steps, which xprof and TensorBoard show."""

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
        self._tracing = False

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def before(self, step: int) -> None:
        """Begins where `step` is the first."""
        if step == self._first:
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
            jax.profiler.stop_trace()
            if jax.process_index() == 0:
                say(
                    f"profile of steps {self._first} to {self._last} in {self._folder}; to look at "
                    f"it: pip install xprof && xprof --logdir={self._folder}"
                )
