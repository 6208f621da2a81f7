"""The application: all routes put together behind the guard."""

import asyncio
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from ldm_jax.web import api, gallery_api, refused
from ldm_jax.web.arguments import Arguments
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.grids import Grids
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.sdapi import sdapi_routes
from ldm_jax.web.sdapi.server_options import Options
from ldm_jax.web.security import Guard
from ldm_jax.web.services import Services
from ldm_jax.web.worker import Worker

STATIC = Path(__file__).parent / "static"
"""The page."""


def make_services(models: ModelList, gallery: Gallery, limits: Limits) -> Services:
    """The parts of a server; nothing is drawn before its worker is started."""
    worker, grids = Worker(models, gallery, limits), Grids(gallery)
    worker.on_end.append(grids.ended)
    return Services(models, gallery, limits, worker, grids)


def make_app(services: Services, arguments: Arguments) -> ASGIApp:
    """What answers HTTP."""
    app = Starlette(
        routes=[
            Mount("/api", routes=[*api.ROUTES, *gallery_api.ROUTES]),
            Mount("/sdapi/v1", routes=sdapi_routes.ROUTES),
            Mount("/controlnet", routes=sdapi_routes.CONTROL_ROUTES),
            Mount("/", _Page(directory=STATIC, html=True, check_dir=False)),
        ],
        exception_handlers={
            kind: refused.answer for kind in (refused.Refused, HTTPException, Exception)
        },
    )
    app.state.services, app.state.limits, app.state.followers = services, services.limits, 0
    app.state.arguments, app.state.options = arguments, Options()
    return Guard(app, arguments.access)


class _Page(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        """The files of the page; whatever else is asked for is not there."""
        if scope["method"] not in ("GET", "HEAD"):
            there = path in (".", "") or await asyncio.to_thread((STATIC / path).is_file)
            raise HTTPException(405 if there else 404)
        return await super().get_response(path, scope)
