"""The one thread that owns JAX: it loads models and draws the jobs of a queue, first in, first
out."""

import gc
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm_jax.config.control_choice import ControlChoice
from ldm_jax.config.request import ModelChoice
from ldm_jax.core.output import say
from ldm_jax.core.reading import printable
from ldm_jax.web import refused
from ldm_jax.web.gallery import Gallery, given_files
from ldm_jax.web.jobs import ENDED, Job
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.refused import Refused

if TYPE_CHECKING:
    from ldm_jax.generation.library import Model

REMEMBERED = 100
"""Jobs that have ended and can still be asked for."""
STOPPING_SECONDS = 5.0
"""How long the end of the server waits for the present part of a drawing."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Loaded:
    """The model in memory."""

    name: str
    choice: ModelChoice
    model: "Model"

    def serves(self, choice: ModelChoice, optional: Collection[str]) -> bool:
        """Whether it is what `choice` asks for; settings that were left out when it was loaded,
        because it does not have them, may be insisted on."""
        own = self.model.pipeline.choice
        if own.embeddings_dir is None:  # the server's, which not every model has a use for
            choice = replace(choice, embeddings_dir=None)
        if _files_of(choice.control) == _files_of(own.control):  # scales are changed at once
            choice = replace(choice, control=own.control)
        known = replace(
            self.choice, embeddings_dir=choice.embeddings_dir, control=own.control
        )  # fmt: skip
        return own == choice or bool(optional) and known == choice


def _files_of(control: tuple[str, ...]) -> list[Path]:
    return [ControlChoice.parse(one).file for one in control]


class Worker:
    """Everything that HTTP wants of it is quick and may come from any thread."""

    def __init__(self, models: ModelList, gallery: Gallery, limits: Limits) -> None:
        self.models, self.gallery, self.limits = models, gallery, limits
        self.loaded: Loaded | None = None
        self.forms: dict[str, dict[str, Any]] = {}
        """What each model that was loaded can be asked for."""
        self.version = 0
        """Counts changes of what `jobs` tells."""
        self.on_end: list[Callable[[Job], None]] = []
        """Called in this thread with each job that has ended."""
        self.pictures_drawn = 0
        """Since the start."""
        self._watched = 0.0
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._current: Job | None = None
        self._ended: deque[Job] = deque(maxlen=REMEMBERED)
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="jax", daemon=True)

    def start(self) -> None:
        """Begins to draw."""
        self._thread.start()

    def close(self) -> None:
        """Drops the queue and ends the present drawing after its present part, or after
        `STOPPING_SECONDS`."""
        with self._changed:
            self._closing = True
            if self._current is not None:
                self._current.stop = True
            self._changed.notify_all()
        self._thread.join(STOPPING_SECONDS)

    # -------------------------------------------------------------------------- for HTTP threads

    def submit(self, *jobs: Job) -> None:
        """Puts jobs at the end of the queue; raises Refused: 429 where it has no room for all, 503
        where the server is ending."""
        with self._changed:
            if self._closing:
                raise Refused(503, (None, "the server is ending; start it again, then draw"))
            waiting = sum(job.draws for job in self._queue)
            if waiting + len(jobs) > self.limits.max_queue:
                raise Refused(429, (None, f"{waiting} requests wait to be drawn, of at most "
                                    f"{self.limits.max_queue}; try again later"))  # fmt: skip
            self._queue.extend(jobs)
            self._change()

    def load_later(self, model: str) -> str | None:
        """Has a model loaded after all that waits, so that there is a form for it; returns what
        that waits for, None while the model is being loaded."""
        with self._changed:
            current = self._current
            if current is not None and current.model == model and current.stage == "loading":
                return None
            if not any(job.model == model and not job.draws for job in self._queue):
                self._queue.append(Job(model, ()))
                self._change()
            return self.waits_for

    def stop(self, job: Job) -> None:
        """Takes a job off the queue, or ends it after its present part."""
        with self._changed:
            if job in self._queue:
                self._queue.remove(job)
                self._end(job, "stopped")
            elif job.stage not in ENDED:
                job.stop = True
            self._change()

    def skip(self, job: Job) -> None:
        """Leaves out the pictures that are drawn just now."""
        with self._changed:
            if job is self._current:
                job.skip = True

    @property
    def current(self) -> Job | None:
        """What is drawn just now."""
        with self._changed:
            return self._current

    def jobs(self) -> list[Job]:
        """Those that ended last, the present one, and the queue, in this order."""
        with self._changed:
            now = [self._current] if self._current else []
            return [job for job in (*self._ended, *now, *self._queue) if job.draws]

    def jobs_json(self) -> list[dict[str, Any]]:
        """All jobs as JSON has them."""
        with self._changed:
            return [job.to_json(self.waits_for) for job in self.jobs()]

    def inputs_in_use(self) -> set[str]:
        """The names of the pictures and files that the present job and those that wait start
        from."""
        with self._changed:
            jobs = [job for job in (self._current, *self._queue) if job is not None]
            requests = [request for job in jobs for request in job.requests]
        return {file.name for request in requests for file in given_files(request).values()}

    def find(self, job_id: str) -> Job:
        """A job by its id; raises Refused (404)."""
        for job in self.jobs():
            if job.id == job_id:
                return job
        raise Refused(404, (None, "there is no such job; those that ended are told of for a while"))

    def job_json(self, job: Job) -> dict[str, Any]:
        """One job as JSON has it."""
        with self._changed:
            return job.to_json(self.waits_for)

    @property
    def waits_for(self) -> str | None:
        """What everything in the queue waits for now."""
        with self._changed:
            if self._current is None:
                return None
            if self._current.stage == "loading":
                return f"the model {self._current.model}"
            return "the drawing"

    def watch(self) -> None:
        """Somebody looks: previews are worth making for some seconds."""
        self._watched = time.monotonic()

    @property
    def is_watched(self) -> bool:
        """Whether somebody has looked in the last seconds."""
        return time.monotonic() - self._watched < 10

    # ---------------------------------------------------------------------------- in this thread

    def update(self, job: Job, **changes: Any) -> None:
        """Changes what is told of a job."""
        with self._changed:
            for name, value in changes.items():
                setattr(job, name, value)
            self._change()

    def _change(self) -> None:
        self.version += 1
        self._changed.notify_all()

    def _run(self) -> None:
        # JAX starts here, in this thread, while nobody waits for it yet.
        from ldm_jax.web import drawing  # noqa: F401

        while (job := self._take()) is not None:
            try:
                self._draw(job)
                stage, why = "stopped" if job.stop else "done", None
            except Refused as error:
                stage, why = "failed", error
            except Exception as error:
                if not isinstance(error, ValueError | OSError):  # which nobody foresaw
                    _log.warning("a job failed", exc_info=error)
                files = given_files(job.requests[0]) if job.requests else {}
                stage, why = "failed", refused.of_error(error, files)
            with self._changed:
                job.refused = why
                self._current = None
                self._end(job, stage)
            self._call_on_end(job)

    def _call_on_end(self, job: Job) -> None:
        for action in self.on_end:
            try:
                action(job)
            except Exception as error:  # the next job is drawn all the same
                _log.warning("after a job: %s", refused.of_error(error))

    def _take(self) -> Job | None:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if self._closing:
                return None
            self._current = self._queue.popleft()
            self._current.begun = time.monotonic()
            self._change()
            return self._current

    def _end(self, job: Job, stage: str) -> None:
        job.stage, job.seconds_left, job.preview_png = stage, None, None
        if not job.keep:
            job.drawn = []
        self._ended.append(job)
        self._change()
        job.ended.set()

    def _draw(self, job: Job) -> None:
        from ldm_jax.web.drawing import draw

        entry = self.models.find(job.model)
        choice = job.requests[0].model if job.requests else self.models.usual_choice(entry.path)
        model = self._load(job, choice)
        if job.requests:
            draw(self, job, model)

    def _load(self, job: Job, choice: ModelChoice) -> "Model":
        """The model, dropping the one that was in memory where it is another."""
        from ldm_jax.generation.library import Model
        from ldm_jax.generation.pipeline import Pipeline
        from ldm_jax.web.form import facts_of

        loaded = self.loaded
        if loaded is not None and loaded.serves(choice, job.optional):
            if loaded.model.pipeline.choice.control != choice.control:
                loaded.model.pipeline.rescale(choice.control)
            return loaded.model
        self.update(job, stage="loading")
        self.loaded = None
        gc.collect()  # before there is room for the next
        try:
            model = Model(Pipeline.open(choice, (*job.optional, "embeddings_dir")))
            if job.model not in self.forms or choice == self.models.usual_choice(choice.model):
                self.forms[job.model] = facts_of(model)
        except Exception as error:
            found = refused.of_error(error)
            # The path is this machine's; clients know the name.
            why = found.errors[0][1].replace(str(choice.model), job.model)
            if choice == self.models.usual_choice(choice.model):
                self.models.set_problem(job.model, why)
                raise Refused(found.status, ("model", why)) from error
            # The model may be sound, and one of the settings beside it at fault.
            raise Refused(found.status, (found.errors[0][0] or "model", why)) from error
        self.models.set_problem(job.model, None)
        for note in model.pipeline.notes:
            say(f"ldm_jax.web: note: {printable(note)}")
        self.loaded = Loaded(job.model, choice, model)
        return model
