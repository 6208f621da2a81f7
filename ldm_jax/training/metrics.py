"""What a run tells about itself: metrics files, TensorBoard, pictures and curves."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
from jaxtyping import UInt8

from ldm_jax.core.command import say
from ldm_jax.core.files import reason_of, write_atomically
from ldm_jax.core.reading import printable
from ldm_jax.images.grid import save_png
from ldm_jax.training.curves import draw_curves, read_metrics
from ldm_jax.training.growing_files import GrowingFiles
from ldm_jax.workdir.layout import (
    CURVES,
    HELD_OUT,
    METRICS,
    SAMPLES,
    TENSORBOARD,
    sample_file,
    samples_after,
)

SECONDS_BETWEEN_FLUSHES = 20.0


@contextlib.contextmanager
def _as_if_absent(module: str) -> Iterator[None]:
    """Has `import module` fail, as where it is not installed."""
    before = {name: sys.modules[name] for name in (module,) if name in sys.modules}
    sys.modules[module] = None
    try:
        yield
    finally:
        del sys.modules[module]
        sys.modules.update(before)


# tensorboardX imports it where it is installed, which takes longer than all other imports.
with _as_if_absent("torch"):
    from tensorboardX import summary
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto import event_pb2


class MetricWriter:
    """Writes WORKDIR/metrics.jsonl, one JSON object a line, TensorBoard events beside it, pictures
    to WORKDIR/samples, all curves to WORKDIR/curves.png, and WORKDIR/held_out.txt.

    A value that is not finite is written as null. Only process 0 writes. What cannot be written,
    to a full disk for one, is said once; the run goes on without. Use it as a context manager.
    """

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._kept_step = 0
        self._growing: GrowingFiles | None = None
        self._lines: IO[str] | None = None
        self._events: _Events | None = None
        self._metrics = _Dispensable("metrics", workdir, self._let_go)
        self._pictures = _Dispensable("pictures", workdir)
        self._list = _Dispensable("names of held-out images", workdir)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def places(self, pictures: bool) -> str:
        """Where a run can be watched, which shows `pictures` or not, in words."""
        folder = self._workdir
        drawn = f", pictures in {folder / SAMPLES}" if pictures else ""
        return (
            f"curves in {folder / CURVES}{drawn}; for more: pip install tensorboard && "
            f"tensorboard --logdir={folder / TENSORBOARD}"
        )

    def rewind(self, step: int) -> None:
        """Says that the run goes on after `step`: what was written of later steps is dropped.

        A run that does not call this starts from step 0 and drops everything.

        Raises:
            ValueError: the metrics file is damaged; names the line.
        """
        self.close()
        self._kept_step = step

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Adds one line `{"step": step, **values}` and a TensorBoard point for each value."""
        finite = {k: float(v) if math.isfinite(v) else None for k, v in values.items()}
        with self._metrics.writing():
            if self._metrics.wanted:
                self._open()
                self._lines.write(json.dumps({"step": step} | finite) + "\n")
                self._lines.flush()
                self._events.add(step, [summary.scalar(name, v) for name, v in values.items()])
                self._growing.copy()

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Writes a picture as WORKDIR/samples/step_STEP_NAME.png, and adds it to TensorBoard."""
        with self._metrics.writing():
            if self._metrics.wanted:
                self._open()
                self._events.add(step, [summary.image(name, image, dataformats="HWC")])
        with self._pictures.writing():
            if self._pictures.wanted:
                path = sample_file(self._workdir, step, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                save_png(path, image)

    def held_out(self, names: Iterable[str]) -> str:
        """Writes the names of the examples kept for validation as WORKDIR/held_out.txt, and says
        so in a line; "" where there are none."""
        path, told = self._workdir / HELD_OUT, ""
        with self._list.writing():
            if self._list.wanted:
                lines = [printable(name).replace("\n", "\\n") + "\n" for name in names]
                path.unlink(missing_ok=True)  # of other images, perhaps
                if lines:
                    write_atomically(path, "".join(lines).encode())
                    images = "1 image" if len(lines) == 1 else f"{len(lines)} images"
                    told = f"held out for validation: {images}, listed in {path}"
        return told

    def curves(self) -> None:
        """Draws WORKDIR/curves.png anew from all metrics, which a store then has too."""
        with self._metrics.writing():
            if self._growing is not None:
                self._growing.copy(now=True)
        with self._pictures.writing():
            if self._pictures.wanted and self._metrics.wanted and self._lines is not None:
                records = read_metrics(self._growing.folder / METRICS)
                save_png(self._workdir / CURVES, draw_curves(records))

    def close(self) -> None:
        """Flushes and closes the files; the next value opens them again."""
        with self._metrics.writing():
            for file in (self._lines, self._events):
                if file is not None:
                    file.close()
            self._lines = self._events = None
            if self._growing is not None:
                self._growing.copy(now=True)
                self._growing.remove()
            self._growing = None

    def _open(self) -> None:
        if self._lines is None:
            self._workdir.mkdir(parents=True, exist_ok=True)
            path = self._workdir / METRICS
            self._kept_step = _drop_later_lines(path, self._kept_step)
            self._growing = GrowingFiles(self._workdir)
            self._growing.fetch(METRICS)
            folder = self._growing.folder
            self._lines = (folder / METRICS).open("a")
            self._events = _Events(folder / TENSORBOARD, self._kept_step + 1)
            for later in samples_after(self._workdir, self._kept_step):
                later.unlink()

    def _let_go(self) -> None:
        for file in (self._lines, self._events):
            if file is not None:
                with contextlib.suppress(OSError, ValueError):  # it may be closed by half
                    file.close()
        if self._growing is not None:
            self._growing.remove()
        self._lines = self._events = self._growing = None


class _Dispensable:
    """What a run tells, and can do without."""

    def __init__(self, what: str, workdir: Path, let_go: Callable[[], None] = lambda: None) -> None:
        self._what, self._workdir, self._let_go = what, workdir, let_go
        self.wanted = jax.process_index() == 0

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Says once that it cannot be written, and gives it up."""
        try:
            yield
        except OSError as error:
            if self.wanted:
                say(
                    f"{self._what} cannot be written to {self._workdir}: {reason_of(error)}; the "
                    "run goes on without them"
                )
            self.wanted = False
            self._let_go()


class _Events:
    """A TensorBoard event file, written by whoever calls: the thread of `SummaryWriter` dies of
    a full disk unheard, and whoever writes next waits for it for ever."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        """Args: where, and from which step on earlier event files no longer count."""
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(step=purge_step, session_log=start))

    def add(self, step: int, summaries: list[Any]) -> None:
        for one in summaries:
            self._write(event_pb2.Event(step=step, summary=one))
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self._writer.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._writer.close()

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write_event(event)


def _drop_later_lines(path: Path, step: int) -> int:
    """Keeps the lines up to `step`; a last line without an end was cut off and goes too."""
    if not path.exists():
        return step
    kept = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if not line.endswith("\n"):
            break
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is not a JSON object with a step: {line.strip()[:80]!r}; "
                "repair or remove the file"
            ) from error
    write_atomically(path, "".join(kept).encode())
    return step
