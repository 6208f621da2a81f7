"""How far a drawing is: steps and pictures done, time left, and what the pictures look like so far;
and how many steps to make before looking again."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Int, UInt8

Stage = Literal["compiling", "drawing", "decoding"]


@dataclass(frozen=True, eq=False)
class Progress:
    """A moment of a drawing."""

    stage: Stage
    """What is being done now; "compiling" is drawing with a program that is compiled first."""
    steps_done: int
    steps: int
    """Evaluations of the network, of all batches."""
    pictures_done: int
    pictures: int
    seconds_left: float | None
    """None until a step has been timed. Compiling counts for nothing."""
    rows: Int[np.ndarray, "n"]
    """Which of all the pictures are being drawn."""
    preview: Callable[[], UInt8[np.ndarray, "n h w c"]]
    """Decodes what these pictures are to become, as the network sees it now. It takes as long as
    decoding the finished ones; call it before the drawing goes on."""

    def __str__(self) -> str:
        """Such as "drawing: step 33 of 100, 0 of 6 pictures, 3 s left"."""
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        return (
            f"{self.stage}: step {self.steps_done} of {self.steps}, {self.pictures_done} of "
            f"{self.pictures} pictures{left}"
        )


@dataclass
class Timer:
    """Seconds that something takes; the first time, in which it is compiled, does not count."""

    seconds: float | None = None
    """For one step, of late; None if it is not known."""
    begun: bool = False
    """Whether it has been done, and so is compiled."""

    @contextmanager
    def timing(self, steps: int = 1) -> Iterator[None]:
        """Times what is done inside, so many steps."""
        began = time.monotonic()
        yield
        if self.begun:
            now = (time.monotonic() - began) / steps
            # Half of what is known stays, so that one slow step does not frighten.
            self.seconds = now if self.seconds is None else (self.seconds + now) / 2
        self.begun = True


@dataclass
class Pace:
    """How long the steps of a program, and decoding what it draws, take; kept from one drawing to
    the next."""

    steps: Timer = field(default_factory=Timer)
    decoding: Timer = field(default_factory=Timer)

    def steps_in(self, seconds: float) -> int:
        """How many steps take about so long; one where that is not known."""
        return 1 if self.steps.seconds is None else max(1, round(seconds / self.steps.seconds))

    def left(self, steps: int, batches: int) -> float | None:
        """Seconds for so many steps and decodings."""
        if self.steps.seconds is None:
            return None
        return steps * self.steps.seconds + batches * (self.decoding.seconds or 0.0)


@dataclass
class Moment:
    """Where a drawing of several batches is."""

    batches: int
    pictures: int
    batches_done: int = 0
    pictures_done: int = 0
    steps_done: int = 0

    def turn_to(
        self,
        rows: Int[np.ndarray, "n"],
        pace: Pace,
        steps: int,
        preview: Callable[[], UInt8[np.ndarray, "k h w c"]],
    ) -> None:
        """The next batch has the pictures `rows`, and so many steps, as every batch has."""
        self._rows, self._pace, self._steps, self._preview = rows, pace, steps, preview

    def finish_batch(self) -> None:
        """The batch is drawn."""
        self.batches_done += 1
        self.pictures_done += len(self._rows)

    def progress(self, stage: Stage) -> Progress:
        """What can be said now."""
        rows, preview, steps = self._rows, self._preview, self.batches * self._steps
        left = self._pace.left(steps - self.steps_done, self.batches - self.batches_done)
        return Progress(
            stage, self.steps_done, steps, self.pictures_done, self.pictures, left, rows,
            lambda: preview()[: len(rows)],
        )  # fmt: skip
