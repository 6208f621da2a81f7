"""The worker with a model that is none: order, progress, previews, stopping, skipping, failing."""

import threading
import time
from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest

from ldm_jax.config import ConfigError
from ldm_jax.config.request import ModelChoice, Request
from ldm_jax.generation import library
from ldm_jax.generation.drawing_progress import Progress
from ldm_jax.generation.library import Sample
from ldm_jax.web import drawing
from ldm_jax.web.gallery import Gallery, settings_of
from ldm_jax.web.grids import Axis, Grids, cells_of
from ldm_jax.web.jobs import Job
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.refused import Refused
from ldm_jax.web.worker import Loaded, Worker

STEPS = 4


class Model(library.Model):
    """Draws batches of two, in four steps that each wait to be allowed."""

    def __init__(self):
        self.allowed = threading.Semaphore(0)
        self.seen, self.closed = [], 0

    def watch_request(self, request):
        total = len(request.conditions) * request.num
        batches = [[*range(total)][i : i + 2] for i in range(0, total, 2)]
        try:
            for number, rows in enumerate(batches):
                for step in range(STEPS):
                    self.allowed.acquire()
                    done = number * STEPS + step + 1
                    yield self._progress(rows, done, len(batches) * STEPS)
                for row in rows:
                    one = request.one(*divmod(row, request.num)).changed(steps=STEPS)
                    self.seen.append((one.sampling.seed, one.first_prompt, one.first_image))
                    yield Sample(np.zeros((8, 8, 3), np.uint8), one, {})
        finally:
            self.closed += 1

    def _progress(self, rows, done, steps):
        return Progress(
            "drawing", done, steps, 0, 0, 1.0, np.array(rows),
            lambda: np.zeros((len(rows), 8, 8, 3), np.uint8),
        )  # fmt: skip


@pytest.fixture
def services(tmp_path, monkeypatch):
    (tmp_path / "a.pt").touch()
    model = Model()
    choice = ModelChoice(tmp_path / "a.pt")

    def load(worker, job, wanted):
        if wanted != choice:
            raise ConfigError("height is wrong")
        worker.loaded = Loaded("a.pt", choice, model)
        return model

    monkeypatch.setattr(Worker, "_load", load)
    monkeypatch.setattr(drawing, "cut_prompts", lambda model, request: [])
    monkeypatch.setattr(drawing, "prepared", lambda model, request, limits: request)
    with closing(Gallery(tmp_path / "out")) as gallery:
        worker = Worker(ModelList([tmp_path / "a.pt"]), gallery, Limits(max_queue=5))
        worker.start()
        yield SimpleNamespace(worker=worker, model=model, gallery=gallery, choice=choice)
        worker._closing = True
        model.allowed.release(1000)
        worker.close()
        assert not worker._thread.is_alive()


def job(services, **values):
    values = {"prompt": ["a"]} | values
    return Job("a.pt", (Request.from_dict(values, model=services.choice),))


def until(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_jobs_are_drawn_in_order_with_progress_and_previews(services):
    services.worker.watch()
    jobs = [job(services, seed=seed, num=3) for seed in (5, 6)]
    services.worker.submit(*jobs)
    services.model.allowed.release(2)
    until(lambda: jobs[0].steps_done == 2)
    told = services.worker.jobs_json()
    assert [one["stage"] for one in told] == ["drawing", "queued"]
    assert (told[0]["steps"], told[0]["seconds_left"], told[0]["preview"] >= 1) == (8, 1.0, True)
    assert jobs[0].preview_png.startswith(b"\x89PNG")
    services.model.allowed.release(100)
    assert all(one.ended.wait(20) for one in jobs)
    assert services.model.seen == [(seed, 0, image) for seed in (5, 6) for image in (0, 1, 2)]
    assert [one.stage for one in jobs] == ["done", "done"]
    assert jobs[1].files == ["000004.png", "000005.png", "000006.png"]


def test_a_stopped_job_keeps_what_is_finished(services):
    first, second, third = (job(services, num=4, seed=seed) for seed in range(3))
    services.worker.submit(first, second, third)
    services.worker.stop(second)
    assert second.stage == "stopped" and second.files == []
    services.model.allowed.release(STEPS + 1)
    until(lambda: first.steps_done == STEPS + 1)
    services.worker.stop(first)
    told = {one["id"]: one for one in services.worker.jobs_json()}
    assert told[second.id]["ended"] and not (told[first.id]["ended"] or told[third.id]["ended"])
    assert told[first.id]["stopping"] and told[first.id]["waits_for"] is None
    assert not told[third.id]["stopping"] and told[third.id]["waits_for"] == "the drawing"
    assert services.worker.load_later("b.pt") == "the drawing"
    services.model.allowed.release(100)
    assert third.ended.wait(20)
    assert (first.stage, first.pictures_done, len(first.files)) == ("stopped", 2, 2)
    assert (third.stage, third.pictures_done, services.model.closed) == ("done", 4, 2)


def test_skipping_goes_on_with_the_next_pictures(services):
    skipped = job(services, prompt=["a", "b"], num=3)
    services.worker.submit(skipped)
    services.model.allowed.release(1)
    until(lambda: skipped.steps_done == 1)
    services.worker.skip(skipped)
    services.model.allowed.release(100)
    assert skipped.ended.wait(20)
    # The first batch is left out; the others keep their numbers, and with them their noise.
    assert services.model.seen == [(0, 0, 2), (0, 1, 0), (0, 1, 1), (0, 1, 2)]
    assert skipped.stage == "done"


def test_what_fails_is_told_and_the_next_is_drawn(services, tmp_path):
    bad = Job("a.pt", (Request(model=ModelChoice(tmp_path / "b.pt")),))
    gone = Job("nothing.pt", (Request(),))
    good = job(services)
    services.model.allowed.release(100)
    services.worker.submit(bad, gone, good)
    assert good.ended.wait(20) and good.stage == "done"
    assert bad.to_json()["error"] == {"field": "height", "message": "height is wrong"}
    assert (gone.stage, gone.refused.errors[0][0]) == ("failed", "model")


def test_the_queue_has_an_end(services):
    services.worker.submit(*(job(services) for _ in range(5)))
    with pytest.raises(Refused) as caught:
        services.worker.submit(*(job(services) for _ in range(2)))
    assert caught.value.status == 429
    with pytest.raises(Refused, match="no such job"):
        services.worker.find("nothing")


def test_a_grid_is_saved_when_its_last_cell_is_drawn(services):
    grids = Grids(services.gallery)
    services.worker.on_end.append(grids.ended)
    x, y = Axis("steps", (3, 4)), Axis("seed", (1, 2))
    cells = cells_of(x, y)
    assert cells[1] == {"steps": 4, "seed": 1} and len(cells) == 4
    jobs = [job(services, **cell) for cell in cells]
    number = grids.add(jobs, x, y)
    services.worker.submit(*jobs)
    services.model.allowed.release(100)
    until(lambda: any("grid" in name for name in services.gallery.names()))
    assert {one.to_json()["group"] for one in jobs} == {number}
    sheet = services.gallery.page(None, 1)[0]
    assert sheet.name == "000005_grid.png" and sheet.width >= 2 * 96
    found = settings_of(services.gallery.out / sheet.name, "it")
    assert found["request"]["prompt"] == ["a"] == [sheet.prompt] and not found["problems"]
    axes = {"x": {"name": "steps", "values": [3, 4]}, "y": {"name": "seed", "values": [1, 2]}}
    assert found["grid"] == axes and not {"steps"} & {*found["request"]}
    services.worker._closing = True
    with pytest.raises(Refused, match="is ending") as caught:
        services.worker.submit(job(services))
    assert caught.value.status == 503


def test_the_rest_of_a_request_keeps_its_numbers():
    request = Request.from_dict({"prompt": ["a", "b"], "num": 3, "first_image": 5})
    found = [(one.prompt, one.first_prompt, one.first_image, one.num)
             for one in drawing.requests_without(request, {1, 3, 4, 5})]  # fmt: skip
    assert found == [(("a",), 0, 5, 1), (("a",), 0, 7, 1)]
