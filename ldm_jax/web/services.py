"""What the routes share: the parts of one server, and how a `Request` is made of what is sent:
models go by their names, pictures come as data, all within limits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from starlette.requests import Request as HttpRequest

from ldm_jax.config.checks import ConfigError
from ldm_jax.config.request import FILES, Request, settings
from ldm_jax.web import pictures, refused
from ldm_jax.web.controls import CONTROL, Unit, settings_of_units, units_of
from ldm_jax.web.form import ABSENT, AS_DATA, BY_NAME, all_options
from ldm_jax.web.gallery import OF_CONTROLS, Gallery, given_files
from ldm_jax.web.grids import Grids
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.refused import Refused
from ldm_jax.web.sent_files import SentFile, sent_file_of
from ldm_jax.web.tokens import check_conditions
from ldm_jax.web.tunings import FOLDERS
from ldm_jax.web.worker import Worker

if TYPE_CHECKING:
    from ldm_jax.generation.library import Model

Sent = Mapping[str, Image.Image | SentFile | tuple[Unit, ...]]
"""What comes with a request, by the settings that it is for: pictures, decoded, and files."""


@dataclass(frozen=True, eq=False)
class Services:
    """The parts of one server."""

    models: ModelList
    gallery: Gallery
    limits: Limits
    worker: Worker
    grids: Grids

    @classmethod
    def of(cls, request: HttpRequest) -> "Services":
        """Those of the server that answers a request."""
        return request.app.state.services

    def request_of(self, values: dict[str, Any], model: str, sent: Sent) -> Request:
        """As the function `request_of`; where the model is in memory, prompts and files are read at
        once."""
        request = request_of(
            values, model, sent, models=self.models, gallery=self.gallery, limits=self.limits
        )
        loaded = self.worker.loaded
        if loaded is not None and loaded.serves(request.model, ()):
            check_conditions(loaded.model, request)
            check_files(loaded.model, request)
        return request


def decoded(
    data: Mapping[str, object], limits: Limits
) -> dict[str, Image.Image | SentFile | tuple[Unit, ...]]:
    """Those of the pictures `init_image` and `mask`, of the files that models are conditioned on,
    and of ControlNets with what they are shown, that are there; raises Refused (422)."""
    given = {name: data[name] for name in AS_DATA if data.get(name) not in (None, "")}
    units = units_of(data[CONTROL], limits) if data.get(CONTROL) else ()
    controls = {CONTROL: units} if units else {}
    return controls | {
        name: sent_file_of(value, name, limits.max_pixels) if name in FILES
        else pictures.open_sent(pictures.decode_base64(value, name), name, limits.max_pixels)
        for name, value in given.items()
    }  # fmt: skip


def check_files(model: "Model", request: Request) -> None:
    """Raises Refused (422), naming the field, for files that the model cannot be conditioned on."""
    from ldm_jax.generation.condition_files import read_shown

    try:
        read_shown(model.pipeline.config, request.condition_files)
    except ValueError as error:
        raise refused.of_error(error, given_files(request)) from error


def request_of(
    values: Mapping[str, Any],
    model: str,
    sent: Sent,
    *,
    models: ModelList,
    gallery: Gallery,
    limits: Limits,
) -> Request:
    """The request that `values`, settings by their names, are for the model of that name.

    Pictures and files are written into the gallery's inputs once all else is found to be in order.

    Raises Refused (422), naming the field: what does not exist, is no name that is listed, or is
    beyond the limits.
    """
    entry = models.find(model)
    named = Request(model=models.usual_choice(entry.path)).to_dict()
    named = {name: named[name] for name in ("model", *FOLDERS) if name in named}
    sent = dict(sent)
    units = sent.pop(CONTROL, ())
    if values.get("weak_model") is not None:
        named.pop("embeddings_dir", None)  # whose words it would not know
    neutral = Request()
    values = {name: value for name, value in values.items()
              if name not in ABSENT or value != neutral.setting(name)}  # fmt: skip
    options = all_options()
    for name, value in values.items():
        if name in options and options[name].many and isinstance(value, str | int):
            values[name] = [value]  # one prompt, or class, is a list of one
        if name in ABSENT or name in AS_DATA:
            how = "comes as data, beside the request" if name in AS_DATA else "is not for HTTP"
            if name in OF_CONTROLS:
                raise Refused(422, (name, f"{name} is said beside the request, in {CONTROL}"))
            raise Refused(422, (name, f"{name} names a file of this machine, which {how}"))
        if name in BY_NAME and value is not None:
            named[name] = str(models.find(value, name).path)
    # A picture's place is taken by any name until the rest is known to be in order.
    places = {name: name for name in AS_DATA if name in sent}
    hinted = settings_of_units(units, models.tunings, None)
    with_needs = dict(values) | named | places | hinted
    try:
        request = Request.from_dict(with_needs)
    except ConfigError as error:
        raise refusal_of_settings(error, values) from error
    limits.check(request)
    check_sizes(sent)
    kept = {name: _kept(gallery, what, name) for name, what in sent.items()}
    hinted = settings_of_units(units, models.tunings, gallery)
    return request.changed(**kept, **{n: tuple(v) if isinstance(v, list) else v
                                      for n, v in hinted.items()})  # fmt: skip


def refusal_of_settings(error: ConfigError, values: Mapping[str, Any]) -> Refused:
    """The refusal of settings, or of names that are none."""
    wrong = next((name for name in values if name not in settings()), None)
    if wrong is not None:
        return Refused(422, (str(wrong)[:80], str(error)[:2000]))
    return refused.of_error(error)


def check_sizes(sent: Sent) -> None:
    """Raises Refused (422) for a mask of another size than its picture."""
    image, mask = sent.get("init_image"), sent.get("mask")
    if image is not None and mask is not None and image.size != mask.size:
        raise Refused(422, ("mask", f"the mask has {mask.width} x {mask.height} pixels, its "
                            f"picture {image.width} x {image.height}; they must be of one size")
                      )  # fmt: skip


def _kept(gallery: Gallery, what: Image.Image | SentFile, name: str) -> Path:
    if isinstance(what, SentFile):
        return pictures.keep(gallery.out, what.data, what.suffix)
    pixels = pictures.mask_of if name == "mask" else pictures.picture_of
    return pictures.keep(gallery.out, pictures.png_of_input(pixels(what, name)))
