"""The page's own JSON API: models, forms, tokens, jobs and grids."""

import asyncio
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ldm_jax.web import request_body
from ldm_jax.web.controls import CONTROL
from ldm_jax.web.form import form
from ldm_jax.web.gallery import AS_DATA
from ldm_jax.web.grids import Axis, axis_of, cells_of
from ldm_jax.web.jobs import ENDED, Job
from ldm_jax.web.refused import Refused
from ldm_jax.web.services import Sent, Services, decoded
from ldm_jax.web.tokens import count_tokens


async def models(request: HttpRequest) -> JSONResponse:
    """GET /api/models"""
    services = Services.of(request)
    return JSONResponse(await asyncio.to_thread(_models, services))


def _models(services: Services) -> list[dict[str, Any]]:
    services.models.scan()
    loaded = services.worker.loaded
    found = []
    for entry in services.models.drawing:
        facts = services.worker.forms.get(entry.name)
        found.append({
            "name": entry.name, "inputs": facts["inputs"] if facts else entry.inputs,
            "loaded": loaded is not None and loaded.name == entry.name,
            "problem": services.models.problem(entry.name),
        })  # fmt: skip
    return found


async def model_form(request: HttpRequest) -> JSONResponse:
    """GET /api/form?model=NAME: 202 until the model was in memory once."""
    services, name = Services.of(request), request.query_params.get("model")
    entry = await asyncio.to_thread(services.models.find, name)
    facts = services.worker.forms.get(entry.name)
    if facts is not None:
        return JSONResponse(form(entry.name, facts, services.models, services.limits))
    problem = services.models.problem(entry.name)
    if problem is not None and "again" not in request.query_params:
        raise Refused(422, ("model", problem))
    services.models.set_problem(entry.name, None)
    waits_for = services.worker.load_later(entry.name)
    return JSONResponse({"loading": True, "waits_for": waits_for}, 202)


async def tokens(request: HttpRequest) -> JSONResponse:
    """POST /api/tokens {model, text}: only for the model in memory."""
    services, body = Services.of(request), await request_body.read_json(request)
    request_body.allow_only(body, "model", "text")
    name, text = request_body.text_of(body, "model"), request_body.text_of(body, "text")
    loaded = services.worker.loaded
    if loaded is None or loaded.name != name:
        raise Refused(409, ("model", "only tokens of the model in memory are counted"))
    return JSONResponse(await asyncio.to_thread(count_tokens, loaded.model, text))


async def jobs(request: HttpRequest) -> JSONResponse:
    """GET /api/jobs"""
    services = Services.of(request)
    services.worker.watch()
    return JSONResponse(services.worker.jobs_json())


async def new_job(request: HttpRequest) -> JSONResponse:
    """POST /api/jobs {model, request}, and the data of pictures and files"""
    services, body = Services.of(request), await request_body.read_json(request)
    request_body.allow_only(body, "model", "request", CONTROL, *AS_DATA)
    job = await asyncio.to_thread(_job, services, body)
    return JSONResponse({"id": job.id}, 201)


def _job(services: Services, body: request_body.Json) -> Job:
    name = request_body.text_of(body, "model")
    wanted = services.request_of(_values(body), name, decoded(body, services.limits))
    job = Job(name, (wanted,))
    services.worker.submit(job)
    return job


async def new_grid(request: HttpRequest) -> JSONResponse:
    """POST /api/grid {model, request, x, y}, and the data of pictures and files"""
    services, body = Services.of(request), await request_body.read_json(request)
    request_body.allow_only(body, "model", "request", "x", "y", CONTROL, *AS_DATA)
    return JSONResponse(await asyncio.to_thread(_grid, services, body), 201)


def _grid(services: Services, body: request_body.Json) -> dict[str, Any]:
    name, values = request_body.text_of(body, "model"), _values(body)
    x, y = axis_of(body.get("x"), "x"), axis_of(body.get("y"), "y")
    assert x is not None
    if y is not None and x.name == y.name:
        raise Refused(422, ("y", f"both axes go over {x.name}; choose another for one of them"))
    cells = len(x.values) * (1 if y is None else len(y.values))
    if cells > services.limits.max_queue:
        raise Refused(422, ("x", f"the grid has {cells} cells; at most {services.limits.max_queue} "
                            "are allowed here (max_queue)"))  # fmt: skip
    made = _cells(services, values, name, decoded(body, services.limits), x, y)
    number = services.grids.add(made, x, y)
    try:
        services.worker.submit(*made)
    except Refused:
        services.grids.forget(number)
        raise
    return {"id": number, "jobs": [job.id for job in made]}


def _cells(
    services: Services, values: dict[str, Any], name: str, sent: Sent, x: Axis, y: Axis | None
) -> list[Job]:
    made = []
    for cell in cells_of(x, y):
        job = Job(name, (services.request_of(values | cell, name, sent),))
        if job.pictures != 1:
            raise Refused(
                422, ("num", f"num: a cell of a grid has one picture, not {job.pictures}")
            )
        made.append(job)
    return made


def _values(body: request_body.Json) -> dict[str, Any]:
    """The settings in a body; raises Refused (422)."""
    values = body.get("request", {})
    if not isinstance(values, dict):
        raise Refused(422, ("request", "request must be an object of settings"))
    return {name: value for name, value in values.items() if value is not None}


async def one_job(request: HttpRequest) -> JSONResponse:
    """GET /api/jobs/ID"""
    worker = Services.of(request).worker
    return JSONResponse(worker.job_json(worker.find(request.path_params["id"])))


async def stop_job(request: HttpRequest) -> JSONResponse:
    """DELETE /api/jobs/ID: off the queue, or stopped after its present part."""
    worker = Services.of(request).worker
    job = worker.find(request.path_params["id"])
    worker.stop(job)
    return JSONResponse(worker.job_json(job))


async def skip_job(request: HttpRequest) -> JSONResponse:
    """POST /api/jobs/ID/skip: goes on with the next picture or batch."""
    worker = Services.of(request).worker
    job = worker.find(request.path_params["id"])
    worker.skip(job)
    return JSONResponse(worker.job_json(job))


async def preview(request: HttpRequest) -> Response:
    """GET /api/jobs/ID/preview"""
    worker = Services.of(request).worker
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
