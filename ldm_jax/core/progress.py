"""Progress of anything that takes long: a bar for people, a line now and then for log files."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
from tqdm import tqdm

from ldm_jax.core.output import say
from ldm_jax.core.signals import at_end

SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """A bar with values, images/s and time left on stderr; a line now and then where no one looks.

    Use it as a context manager:

        with Progress("training", total=steps, initial=first, images=batch_size) as bar:
            bar.update(1, loss=loss)
            with bar.paused():
                compile_something()
    """

    def __init__(
        self,
        description: str,
        total: int,
        initial: int = 0,
        images: float | int = 0,
        brief: bool = False,
    ) -> None:
        """Args: the task, its steps, those done before, and how many images one step handles.

        With 0 images the rate is in steps. A `brief` bar appears only if the task takes longer
        than a second, and leaves nothing behind.
        """
        self._description, self._total, self._done = description, total, initial
        self._brief = brief
        self._images = images
        self._active = jax.process_index() == 0
        self._began = self._shown = time.monotonic()
        self._initial = self._shown_done = initial
        self._paused, self._waited = 0.0, False
        self._bar: Any = None
        self._values = ""

    def __enter__(self) -> "Progress":
        self._began = self._shown = time.monotonic()
        self._paused = 0.0
        self._at_end = at_end(self._close)
        self._at_end.__enter__()
        if self._active and sys.stderr.isatty():
            self._bar = tqdm(
                total=self._total, initial=self._initial, desc=self._description,
                file=sys.stderr, dynamic_ncols=True, leave=not self._brief,
                delay=1.0 if self._brief else 0.0,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}",
                postfix="starting",
            )  # fmt: skip
        return self

    def __exit__(self, *exception: object) -> None:
        self._close()
        shown = self._bar is not None or self._brief
        if not shown and self._active and self._done > self._initial:
            self._print_line()
        self._at_end.__exit__(*exception)

    def _close(self) -> None:
        """Ends the bar's line."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()

    @property
    def done(self) -> int:
        """Steps done so far."""
        return self._done

    def update(self, steps: int = 1, **values: float | int) -> None:
        """Counts `steps` more as done and shows `values`, such as the loss."""
        self._done += steps
        if self._waited:
            self._initial, self._waited = self._initial + steps, False
        self._values = "".join(f", {name} {value:.4g}" for name, value in values.items())
        if self._bar is not None:
            passed, left = self._times()
            told = f"{passed} passed, {left} left{self._values}, {self._rate()}"
            self._bar.set_postfix_str(told, refresh=False)
            with contextlib.suppress(OSError):  # the terminal may have gone
                self._bar.update(steps)
            return
        passed = time.monotonic() - self._shown
        if self._active and not self._brief and passed >= SECONDS_BETWEEN_LINES:
            self._print_line()
            self._shown = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What is done inside counts neither for the rate nor for the time left, and may print."""
        began = time.monotonic()
        with contextlib.suppress(OSError):
            if self._bar is not None:
                self._bar.clear()
        try:
            yield
        finally:
            self._paused += time.monotonic() - began
            with contextlib.suppress(OSError):
                if self._bar is not None:
                    self._bar.refresh()

    @contextlib.contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """As `paused`, with a bar that says what is waited for. The steps of the next update were
        made meanwhile, and say nothing of the speed."""
        began = time.monotonic()
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.set_postfix_str(what)
        try:
            yield
        finally:
            self._paused += time.monotonic() - began
            self._waited = True

    def seconds(self) -> float:
        """How long the steps have taken, without what was done while `paused`."""
        return time.monotonic() - self._began - self._paused

    def _rate(self) -> str:
        steps = (self._done - self._initial) / max(self.seconds(), 1e-9)
        rate, unit = (steps * self._images, "images/s") if self._images else (steps, "/s")
        return f"{rate:.3g}{' ' if self._images else ''}{unit}"

    def _times(self) -> tuple[str, str]:
        """The time passed, and the time left at the rate of the steps so far."""
        done, passed = self._done - self._initial, time.monotonic() - self._began
        if not done:
            return tqdm.format_interval(passed), "unknown time"
        left = (self._total - self._done) * self.seconds() / done
        return tqdm.format_interval(passed), tqdm.format_interval(left)

    def _print_line(self) -> None:
        passed, left = self._times()
        say(
            f"{self._description} {self._done}/{self._total}{self._values}, {self._rate()}, "
            f"{passed} passed, {left} left"
        )
