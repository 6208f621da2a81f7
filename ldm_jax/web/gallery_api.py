"""The gallery over HTTP: lists, files, settings of pictures, and what changes."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.routing import Route

from ldm_jax.config.request import FILES, WITH_STRENGTH
from ldm_jax.core.reading import shown
from ldm_jax.web import request_body
from ldm_jax.web.controls import names_in
from ldm_jax.web.gallery import AS_DATA, INPUTS, settings_of
from ldm_jax.web.grids import axis_of
from ldm_jax.web.pictures import sent_file
from ldm_jax.web.refused import Refused
from ldm_jax.web.sent_files import MEDIA_TYPES
from ldm_jax.web.services import Services
from ldm_jax.web.tunings import FOLDERS

MOST = 200
"""Pictures of one page of the list."""
PERIOD = 0.2
"""Seconds between two looks at what has changed."""
ALIVE_SECONDS = 15.0
"""How often a page that follows is told that the server is there."""
FOLLOWERS = 64
"""Pages that follow what changes, at most."""


async def gallery(request: HttpRequest) -> JSONResponse:
    """GET /api/gallery?before=NAME&count=N, newest first."""
    services, query = Services.of(request), request.query_params
    count = query.get("count", "50")
    if not (count.isdecimal() and 1 <= int(count[:9]) <= MOST):
        raise Refused(422, ("count", f"count must be a whole number from 1 to {MOST}"))
    found = await asyncio.to_thread(services.gallery.page, query.get("before"), int(count))
    return JSONResponse([vars(picture) for picture in found])


async def picture(request: HttpRequest) -> FileResponse:
    """GET /api/gallery/NAME"""
    path = Services.of(request).gallery.path(request.path_params["name"])
    return FileResponse(path, media_type="image/png")


async def started_from(request: HttpRequest) -> FileResponse:
    """GET /api/inputs/NAME: a picture or file that a drawing started from."""
    path = Services.of(request).gallery.input_path(request.path_params["name"])
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix])


async def delete(request: HttpRequest) -> JSONResponse:
    """DELETE /api/gallery/NAME"""
    services, name = Services.of(request), request.path_params["name"]
    await asyncio.to_thread(services.gallery.delete, name, services.worker.inputs_in_use)
    return JSONResponse({"deleted": name})


async def picture_settings(request: HttpRequest) -> JSONResponse:
    """GET /api/gallery/NAME/settings"""
    services, name = Services.of(request), request.path_params["name"]
    path = services.gallery.path(name)
    return JSONResponse(await asyncio.to_thread(_settings, services, path, name))


async def sent_settings(request: HttpRequest) -> JSONResponse:
    """POST /api/settings_of with a PNG as the body."""
    services, data = Services.of(request), await request_body.read_bytes(request)
    return JSONResponse(await asyncio.to_thread(_sent_settings, services, data))


def _sent_settings(services: Services, data: bytes) -> dict[str, Any]:
    with sent_file(data, services.gallery.out) as path:
        return _settings(services, path, "the picture")


def _settings(services: Services, path: Path, where: str) -> dict[str, Any]:
    """What a picture says, with names in the place of paths: models as they are listed, pictures
    by where they can be fetched."""
    found = settings_of(path, where)
    named: dict[str, Any] = found.pop("paths")
    for name in (*WITH_STRENGTH, "embeddings", *FOLDERS):
        if named.pop(name, None) is not None and name not in FOLDERS:
            found["problems"].append(f"{name} is chosen for the model; name it in the prompt")
    units = names_in(found.pop("controls"), services.models.tunings)
    for one in units:
        one["image"] = _fetched(services, one["image"])
        if one["model"] is None:
            found["problems"].append("control is none of the ControlNets that are listed here")
    found["control"] = [one for one in units if one["model"] is not None]
    said = named.pop("model", None)
    found["grid"], problem = _grid(found["grid"])
    if problem:
        found["problems"].append(problem)
    model = (services.models.name_of(Path(said)) or services.models.called(said)) if said else None
    answer = found | {"model": model, "model_said": Path(said).name if said else None}
    if said and model is None:
        answer["problems"].append(
            f"the model {shown(Path(said).name)} is none of those listed here"
        )
    given = {name: named.pop(name) for name in AS_DATA if name in named}
    places = {name: _fetched(services, path) for name, path in given.items()}
    lost = [name for name, place in places.items() if place is None]
    answer["problems"] += [f"{name} is not kept here; choose the file again" for name in lost]
    answer |= {name: places.get(name) for name in AS_DATA if name not in FILES}
    answer["files"] = {name: places[name] for name in FILES if name in places}
    for name, value in named.items():
        listed = services.models.name_of(Path(value))
        if listed is None:
            answer["problems"].append(f"{name} is none of the models that are listed here")
        else:
            answer["request"][name] = listed
    return answer


def _grid(told: Any) -> tuple[dict[str, Any] | None, str | None]:
    """The axes of a grid as POST /api/grid takes them, or what is wrong with them."""
    if not isinstance(told, dict):
        return None, None
    try:
        axes = {letter: axis_of(told.get(letter), letter) for letter in ("x", "y")}
    except Refused as error:
        return None, f"its grid cannot be drawn again: {error}"
    return {letter: axis and vars(axis) for letter, axis in axes.items()}, None


def _fetched(services: Services, path: str | None) -> str | None:
    try:
        name = Path(path or "").name
        return f"/api/{INPUTS}/{services.gallery.input_path(name).name}"
    except Refused:
        return None


async def events(request: HttpRequest) -> StreamingResponse:
    """GET /api/events: server-sent events "jobs" and "gallery"."""
    state = request.app.state
    if state.followers >= FOLLOWERS:
        raise Refused(503, (None, f"{FOLLOWERS} pages follow already; close some"))
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _following(request, Services.of(request)), media_type="text/event-stream", headers=headers
    )


async def _following(request: HttpRequest, services: Services) -> AsyncIterator[str]:
    """What changes, at most once in a `PERIOD`, as long as the page is there."""
    state, worker = request.app.state, services.worker
    state.followers += 1
    try:
        seen, (news, _), quiet = -1, services.gallery.since(0), 0.0
        while True:
            worker.watch()
            if worker.version != seen:
                seen, quiet = worker.version, 0.0
                yield f"event: jobs\ndata: {json.dumps(worker.jobs_json())}\n\n"
            news, changes = services.gallery.since(news)
            for change in changes:
                yield f"event: gallery\ndata: {json.dumps(change)}\n\n"
            await asyncio.sleep(PERIOD)
            quiet += PERIOD
            if quiet > ALIVE_SECONDS:
                quiet = 0.0
                yield ": here\n\n"
    finally:
        state.followers -= 1


ROUTES = [
    Route("/gallery", gallery),
    Route("/gallery/{name}", picture),
    Route("/gallery/{name}", delete, methods=["DELETE"]),
    Route("/gallery/{name}/settings", picture_settings),
    Route("/inputs/{name}", started_from),
    Route("/settings_of", sent_settings, methods=["POST"]),
    Route("/events", events),
]
