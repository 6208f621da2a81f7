"""The application: all routes put together behind the guard."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from ldm_jax.web import api, gallery_api, refusals
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.grids import Grids
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.security import Access, Guard
from ldm_jax.web.state import House
from ldm_jax.web.worker import Worker

STATIC = Path(__file__).parent / "static"
"""The page."""


def make_house(models: ModelList, gallery: Gallery, limits: Limits) -> House:
    """The parts of a server; nothing is drawn before its worker is started."""
    worker, grids = Worker(models, gallery, limits), Grids(gallery)
    worker.on_end.append(grids.ended)
    return House(models, gallery, limits, worker, grids)


def make_app(house: House, access: Access) -> ASGIApp:
    """What answers HTTP."""
    app = Starlette(
        routes=[*api.ROUTES, *gallery_api.ROUTES, _page()],
        exception_handlers={refusals.Refused: refusals.answer, HTTPException: refusals.answer},
    )
    app.state.house, app.state.limits, app.state.followers = house, house.limits, 0
    return Guard(app, access)


def _page() -> Mount:
    return Mount("/", StaticFiles(directory=STATIC, html=True, check_dir=False))
