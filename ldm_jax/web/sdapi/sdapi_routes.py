"""The routes below `/sdapi/v1/`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ldm_jax.web import request_body
from ldm_jax.web.refused import Refused
from ldm_jax.web.sdapi import answers, lists
from ldm_jax.web.sdapi.control_units import MODULES
from ldm_jax.web.sdapi.request_fields import check
from ldm_jax.web.sdapi.server_options import changed
from ldm_jax.web.sdapi.translation import Translated, renamed, translate
from ldm_jax.web.services import Services

PERIOD = 0.05
"""Seconds between two looks at whether the client is still there."""

Answer = Callable[[HttpRequest], Awaitable[Response]]


def _answering(answer: Answer) -> Answer:
    """Refusals also as FastAPI has them, which clients of this API know."""

    async def answered(request: HttpRequest) -> Response:
        try:
            return await answer(request)
        except Refused as refused:
            error = renamed(refused)
            detail = [
                {"loc": ["body", field], "msg": why, "type": "value_error"}
                for field, why in error.errors
            ]
            return JSONResponse({"detail": detail} | error.body, error.status)

    return answered


async def txt2img(request: HttpRequest) -> Response:
    """POST txt2img"""
    return await _draw(request, is_img2img=False)


async def img2img(request: HttpRequest) -> Response:
    """POST img2img"""
    return await _draw(request, is_img2img=True)


async def _draw(request: HttpRequest, is_img2img: bool) -> Response:
    services, given = Services.of(request), await request_body.read_json(request)
    translated = await asyncio.to_thread(_translated, request, given, is_img2img)
    job = translated.job
    services.worker.submit(job)
    while not job.ended.is_set():
        if await request.is_disconnected():
            job.keep = False
            services.worker.stop(job)
            raise Refused(400, (None, "the client went away"))
        await asyncio.sleep(PERIOD)
    if job.refused is not None:
        raise job.refused
    if not translated.fields["override_settings_restore_afterwards"]:
        request.app.state.options = translated.options
    answer = await asyncio.to_thread(answers.drawn, translated, given)
    job.drawn = []  # a picture is told once, and takes its memory no longer
    return JSONResponse(answer)


def _translated(request: HttpRequest, given: request_body.Json, is_img2img: bool) -> Translated:
    return translate(check(given, is_img2img), request.app.state.options, Services.of(request))


async def progress(request: HttpRequest) -> Response:
    """GET progress"""
    skip = request.query_params.get("skip_current_image", "").lower() in ("true", "1")
    return JSONResponse(answers.progress(Services.of(request).worker, skip))


async def interrupt(request: HttpRequest) -> Response:
    """POST interrupt: ends what is drawn now; what is finished is kept."""
    worker = Services.of(request).worker
    if worker.current is not None:
        worker.stop(worker.current)
    return JSONResponse({})


async def skip(request: HttpRequest) -> Response:
    """POST skip: goes on with the next picture."""
    worker = Services.of(request).worker
    if worker.current is not None:
        worker.skip(worker.current)
    return JSONResponse({})


async def options(request: HttpRequest) -> Response:
    """GET options"""
    return JSONResponse(request.app.state.options.to_json(Services.of(request).models))


async def set_options(request: HttpRequest) -> Response:
    """POST options"""
    given, models = await request_body.read_json(request), Services.of(request).models
    before = request.app.state.options
    request.app.state.options = await asyncio.to_thread(changed, before, given, models)
    return JSONResponse(None)


async def models(request: HttpRequest) -> Response:
    """GET sd-models"""
    return JSONResponse(await asyncio.to_thread(lists.models, Services.of(request).models))


async def adapters(request: HttpRequest) -> Response:
    """GET loras"""
    return JSONResponse(await asyncio.to_thread(lists.adapters, Services.of(request).models))


async def hypernetworks(request: HttpRequest) -> Response:
    """GET hypernetworks"""
    return JSONResponse(await asyncio.to_thread(lists.hypernetworks, Services.of(request).models))


async def embeddings(request: HttpRequest) -> Response:
    """GET embeddings"""
    services = Services.of(request)
    found = await asyncio.to_thread(lists.embeddings, services.models, services.worker.loaded)
    return JSONResponse(found)


async def refresh(request: HttpRequest) -> Response:
    """POST refresh-checkpoints"""
    await asyncio.to_thread(Services.of(request).models.scan)
    return JSONResponse(None)


async def png_info(request: HttpRequest) -> Response:
    """POST png-info {image}"""
    services, given = Services.of(request), await request_body.read_json(request)
    request_body.allow_only(given, "image")
    return JSONResponse(await asyncio.to_thread(answers.png_info, given, services.gallery.out))


async def flags(request: HttpRequest) -> Response:
    """GET cmd-flags"""
    return JSONResponse(lists.flags(request.app.state.arguments))


async def memory(request: HttpRequest) -> Response:
    """GET memory"""
    return JSONResponse(await asyncio.to_thread(lists.memory))


def _listing(content: Any) -> Answer:
    async def listed(request: HttpRequest) -> Response:
        return JSONResponse(content)

    return listed


_GET: dict[str, Answer] = {
    "progress": progress, "options": options, "sd-models": models, "cmd-flags": flags,
    "memory": memory, "loras": adapters, "hypernetworks": hypernetworks, "embeddings": embeddings,
} | {name: _listing(content) for name, content in lists.LISTS.items()}  # fmt: skip
_POST: dict[str, Answer] = {
    "txt2img": txt2img, "img2img": img2img, "interrupt": interrupt, "skip": skip,
    "options": set_options, "png-info": png_info, "refresh-checkpoints": refresh,
    "refresh-loras": refresh,
}  # fmt: skip
ROUTES = [
    Route(f"/{name}", _answering(answer), methods=[method])
    for method, routes in (("GET", _GET), ("POST", _POST)) for name, answer in routes.items()
]  # fmt: skip


async def control_models(request: HttpRequest) -> Response:
    """GET /controlnet/model_list"""
    return JSONResponse({"model_list": [*Services.of(request).models.tunings.controls]})


async def control_modules(request: HttpRequest) -> Response:
    """GET /controlnet/module_list"""
    return JSONResponse({"module_list": [*MODULES]})


CONTROL_ROUTES = [Route("/model_list", control_models), Route("/module_list", control_modules)]
"""Below `/controlnet/`."""
