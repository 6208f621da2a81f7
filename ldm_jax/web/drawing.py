"""Drawing a job: its requests one after the other, with progress, previews, stopping, skipping."""

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ldm_jax.config.request import Request
from ldm_jax.generation.drawing_progress import Progress
from ldm_jax.generation.library import Model, Sample
from ldm_jax.generation.resolve import resolve_request, with_own_batch
from ldm_jax.images.grid import png_bytes, see_through_grid
from ldm_jax.images.infotext import CHUNK as PARAMETERS
from ldm_jax.web.gallery import Gallery, png_of
from ldm_jax.web.jobs import Job
from ldm_jax.web.limits import Limits
from ldm_jax.web.tokens import cut_prompts

PREVIEWED = 16
"""Pictures of a batch that a preview shows, at most."""
PREVIEW_SHARE = 0.1
"""Share of the time that previews may take."""


@runtime_checkable
class Reporter(Protocol):
    """What a drawing needs of the worker."""

    gallery: Gallery
    limits: Limits
    pictures_drawn: int

    @property
    def is_watched(self) -> bool: ...

    def update(self, job: Job, **changes: Any) -> None: ...


def draw(worker: Reporter, job: Job, model: Model) -> None:
    """Draws all of a job, or until it is stopped; pictures are written as they are finished."""
    notes = [note for request in job.requests for note in cut_prompts(model, request)]
    worker.update(job, stage="compiling", notes=[*dict.fromkeys(notes)])
    previews = _Previews(worker, job)
    waiting, before = [*job.requests], 0
    while waiting and not job.stop:
        request = prepared(model, waiting.pop(0), worker.limits)
        drawn, present = set(), []
        events = model.watch_request(request)
        try:
            for event in events:
                if isinstance(event, Sample):  # finished, whatever anybody wants by now
                    drawn.add(_number_of(request, event.request))
                    _finish(worker, job, event)
                    continue
                present = [int(row) for row in event.rows]
                _report(worker, job, event, before)
                if job.stop or job.skip:
                    break
                previews.make(event)
        finally:
            events.close()
        if job.skip and not job.stop:
            waiting = requests_without(request, drawn | {*present}) + waiting
            worker.update(job, skip=False)
        before = job.steps_done


def prepared(model: Model, request: Request, limits: Limits) -> Request:
    """The request with a batch of its own size.

    Raises what `resolve_request` does, and Refused for sizes beyond the limits, which only the
    model or the picture has told.
    """
    request = with_own_batch(model.pipeline, request)
    limits.check(resolve_request(model.pipeline, request).request)
    return request


def requests_without(request: Request, without: set[int]) -> list[Request]:
    """Requests for the pictures of one but those with the numbers `without`; noise and names stay
    as they are."""
    found = []
    for place in range(len(request.conditions)):
        rows = [row for row in range(place * request.num, (place + 1) * request.num)]
        wanted = [row for row in rows if row not in without]
        for run in _runs(wanted):
            one = request.one(place, run[0] - rows[0])
            found.append(replace(one, num=len(run)))
    return found


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Numbers in stretches without a gap."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][-1] == number - 1:
            found[-1].append(number)
        else:
            found.append([number])
    return found


def _number_of(request: Request, one: Request) -> int:
    """Which of a request's pictures one of them is."""
    place = one.first_prompt - request.first_prompt
    return place * request.num + one.first_image - request.first_image


def _report(worker: Reporter, job: Job, event: Progress, before: int) -> None:
    worker.update(
        job, stage=event.stage, steps_done=before + event.steps_done,
        steps=event.steps * len(job.requests), seconds_left=_left(job, event, before),
    )  # fmt: skip


def _left(job: Job, event: Progress, before: int) -> float | None:
    """Seconds until all of the job's requests are drawn, as far as that can be known."""
    if event.seconds_left is None or len(job.requests) == 1:
        return event.seconds_left
    done, total = before + event.steps_done, event.steps * len(job.requests)
    passed = time.monotonic() - (job.begun or 0.0)
    return passed / done * (total - done) if done else None


def _finish(worker: Reporter, job: Job, sample: Sample) -> None:
    """Writes one picture, as `sample.py` does."""
    text, files, drawn = dict(sample.text), [*job.files], [*job.drawn]
    if job.save:
        files.append(worker.gallery.write(sample.array, text))
    if job.keep:
        parameters = text.get(PARAMETERS)
        drawn.append((png_bytes(sample.array, text), sample.request, parameters))
    worker.pictures_drawn += 1
    worker.update(job, pictures_done=job.pictures_done + 1, files=files, drawn=drawn)


class _Previews:
    """Makes previews as often as they are cheap beside the drawing."""

    def __init__(self, worker: Reporter, job: Job) -> None:
        self._worker, self._job = worker, job
        self._last, self._cost = time.monotonic(), 0.0

    def make(self, event: Progress) -> None:
        now = time.monotonic()
        if event.stage != "drawing" or not event.steps_done or not self._worker.is_watched:
            return
        if self._cost > PREVIEW_SHARE * (now - self._last):
            return
        images = np.asarray(event.preview())[:PREVIEWED]
        columns = int(np.ceil(np.sqrt(len(images))))
        shown = images[0] if len(images) == 1 else see_through_grid(images, columns)
        png = png_of(shown)
        self._last = time.monotonic()
        self._cost = self._last - now
        self._worker.update(self._job, preview=self._job.preview + 1, preview_png=png)
