"""The page's own JSON API: models, forms, tokens, jobs and grids."""

import asyncio
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ldm_jax.web import body as bodies
from ldm_jax.web.asking import Pictures, decoded
from ldm_jax.web.form import form
from ldm_jax.web.grids import Axis, axis_of, cells_of
from ldm_jax.web.jobs import ENDED, Job
from ldm_jax.web.refusals import Refused
from ldm_jax.web.state import House
from ldm_jax.web.tokens import count_tokens


async def models(request: HttpRequest) -> JSONResponse:
    """GET /api/models"""
    house = House.of(request)
    return JSONResponse(await asyncio.to_thread(_models, house))


def _models(house: House) -> list[dict[str, Any]]:
    house.models.scan()
    loaded = house.worker.loaded
    found = []
    for entry in house.models.drawing:
        facts = house.worker.forms.get(entry.name)
        found.append({
            "name": entry.name, "inputs": facts["inputs"] if facts else entry.inputs,
            "loaded": loaded is not None and loaded.name == entry.name,
            "problem": house.models.problem(entry.name),
        })  # fmt: skip
    return found


async def model_form(request: HttpRequest) -> JSONResponse:
    """GET /api/form?model=NAME: 202 until the model was in memory once."""
    house, name = House.of(request), request.query_params.get("model")
    entry = await asyncio.to_thread(house.models.find, name)
    facts = house.worker.forms.get(entry.name)
    if facts is not None:
        return JSONResponse(form(entry.name, facts, house.models, house.limits))
    problem = house.models.problem(entry.name)
    if problem is not None and "again" not in request.query_params:
        raise Refused(422, ("model", problem))
    house.models.note(entry.name, None)
    waits_for = house.worker.want(entry.name)
    return JSONResponse({"loading": True, "waits_for": waits_for}, 202)


async def tokens(request: HttpRequest) -> JSONResponse:
    """POST /api/tokens {model, text}: only for the model in memory."""
    house, asked = House.of(request), await bodies.read_json(request)
    bodies.only(asked, "model", "text")
    name, text = bodies.text_of(asked, "model"), bodies.text_of(asked, "text")
    loaded = house.worker.loaded
    if loaded is None or loaded.name != name:
        raise Refused(409, ("model", "only tokens of the model in memory are counted"))
    return JSONResponse(await asyncio.to_thread(count_tokens, loaded.model, text))


async def jobs(request: HttpRequest) -> JSONResponse:
    """GET /api/jobs"""
    house = House.of(request)
    house.worker.watch()
    return JSONResponse(house.worker.told())


async def new_job(request: HttpRequest) -> JSONResponse:
    """POST /api/jobs {model, request, init_image, mask}"""
    house, asked = House.of(request), await bodies.read_json(request)
    bodies.only(asked, "model", "request", "init_image", "mask")
    job = await asyncio.to_thread(_job, house, asked)
    return JSONResponse({"id": job.id}, 201)


def _job(house: House, asked: bodies.Json) -> Job:
    name = bodies.text_of(asked, "model")
    wanted = house.request_of(_values(asked), name, decoded(asked, house.limits))
    job = Job(name, (wanted,))
    house.worker.submit(job)
    return job


async def new_grid(request: HttpRequest) -> JSONResponse:
    """POST /api/grid {model, request, x, y, init_image, mask}"""
    house, asked = House.of(request), await bodies.read_json(request)
    bodies.only(asked, "model", "request", "x", "y", "init_image", "mask")
    return JSONResponse(await asyncio.to_thread(_grid, house, asked), 201)


def _grid(house: House, asked: bodies.Json) -> dict[str, Any]:
    name, values = bodies.text_of(asked, "model"), _values(asked)
    x, y = axis_of(asked.get("x"), "x"), axis_of(asked.get("y"), "y")
    assert x is not None
    if y is not None and x.name == y.name:
        raise Refused(422, ("y", f"both axes go over {x.name}; choose another for one of them"))
    cells = len(x.values) * (1 if y is None else len(y.values))
    if cells > house.limits.max_queue:
        raise Refused(422, ("x", f"the grid has {cells} cells; at most {house.limits.max_queue} "
                            "are allowed here (max_queue)"))  # fmt: skip
    made = _cells(house, values, name, decoded(asked, house.limits), x, y)
    number = house.grids.add(made, x, y)
    try:
        house.worker.submit(*made)
    except Refused:
        house.grids.forget(number)
        raise
    return {"id": number, "jobs": [job.id for job in made]}


def _cells(
    house: House, values: dict[str, Any], name: str, sent: Pictures, x: Axis, y: Axis | None
) -> list[Job]:
    made = []
    for cell in cells_of(x, y):
        job = Job(name, (house.request_of(values | cell, name, sent),))
        if job.pictures != 1:
            raise Refused(
                422, ("num", f"num: a cell of a grid has one picture, not {job.pictures}")
            )
        made.append(job)
    return made


def _values(asked: bodies.Json) -> dict[str, Any]:
    """The settings in a body; raises Refused (422)."""
    values = asked.get("request", {})
    if not isinstance(values, dict):
        raise Refused(422, ("request", "request must be an object of settings"))
    return {name: value for name, value in values.items() if value is not None}


async def one_job(request: HttpRequest) -> JSONResponse:
    """GET /api/jobs/ID"""
    worker = House.of(request).worker
    return JSONResponse(worker.told_of(worker.find(request.path_params["id"])))


async def stop_job(request: HttpRequest) -> JSONResponse:
    """DELETE /api/jobs/ID: off the queue, or stopped after its present part."""
    worker = House.of(request).worker
    job = worker.find(request.path_params["id"])
    worker.stop(job)
    return JSONResponse(worker.told_of(job))


async def skip_job(request: HttpRequest) -> JSONResponse:
    """POST /api/jobs/ID/skip: goes on with the next picture or batch."""
    worker = House.of(request).worker
    job = worker.find(request.path_params["id"])
    worker.skip(job)
    return JSONResponse(worker.told_of(job))


async def preview(request: HttpRequest) -> Response:
    """GET /api/jobs/ID/preview"""
    worker = House.of(request).worker
    worker.watch()
    job = worker.find(request.path_params["id"])
    png = job.preview_png
    if png is None and job.stage in ENDED:
        return Response(status_code=204)  # it ended after the page had heard of its preview
    if png is None:
        raise Refused(404, (None, "there is no preview of this job now"))
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})


ROUTES = [
    Route("/models", models),
    Route("/form", model_form),
    Route("/tokens", tokens, methods=["POST"]),
    Route("/jobs", jobs),
    Route("/jobs", new_job, methods=["POST"]),
    Route("/jobs/{id}", one_job),
    Route("/jobs/{id}", stop_job, methods=["DELETE"]),
    Route("/jobs/{id}/skip", skip_job, methods=["POST"]),
    Route("/jobs/{id}/preview", preview),
    Route("/grid", new_grid, methods=["POST"]),
]
