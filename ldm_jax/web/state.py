"""What the routes share: the parts of one server."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest

from ldm_jax.config.request import Request
from ldm_jax.web.asking import Pictures, request_of
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.grids import Grids
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.tokens import check_conditions
from ldm_jax.web.worker import Worker


@dataclass(frozen=True, eq=False)
class House:
    """The parts of one server."""

    models: ModelList
    gallery: Gallery
    limits: Limits
    worker: Worker
    grids: Grids

    @classmethod
    def of(cls, request: HttpRequest) -> "House":
        """Those of the server that answers a request."""
        return request.app.state.house

    def request_of(self, values: dict[str, Any], model: str, sent: Pictures) -> Request:
        """As `asking.request_of`; where the model is in memory, prompts are read at once."""
        request = request_of(
            values, model, sent, models=self.models, gallery=self.gallery, limits=self.limits
        )
        loaded = self.worker.loaded
        if loaded is not None and loaded.serves(request.model, ()):
            check_conditions(loaded.model, request)
        return request
