"""ControlNets of a request: which of the server's, what each is shown, how strongly and when."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from PIL import Image

from ldm_jax.config.checks import ConfigError, matches
from ldm_jax.config.control_choice import CANNY, ControlChoice, HintChoice, HintFit
from ldm_jax.web import pictures
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.limits import Limits
from ldm_jax.web.refused import Refused
from ldm_jax.web.tunings import Tunings

CONTROL = "control"
"""The field of a body that lists them."""
MOST = 8
"""ControlNets of one request, at most."""
FIELDS: dict[str, tuple[Any, Any, str]] = {
    "model": (str, None, "the name of a ControlNet"), "image": (str, None, "a picture in base64"),
    "scale": (float | int, 1.0, "a number"), "start": (float | int, 0.0, "a number from 0 to 1"),
    "end": (float | int, 1.0, "a number from 0 to 1"),
    "canny": (bool | list, False, "true, false or two numbers"),
    "guess_mode": (bool, False, "true or false"),
    "fit": (HintFit, "stretch", f"one of {', '.join(get_args(HintFit))}"),
}  # fmt: skip
"""Of each: type, what it is where it is left out (None: it must be there), and what is allowed."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One ControlNet."""

    model: str
    image: Image.Image
    scale: float = 1.0
    start: float = 0.0
    end: float = 1.0
    canny: tuple[float, float] | None = None
    guess_mode: bool = False
    fit: HintFit = "stretch"


def units_of(value: object, limits: Limits) -> tuple[Unit, ...]:
    """Those that the field `control` of a body lists; raises Refused (422) naming what is wrong."""
    if not isinstance(value, list) or len(value) > MOST:
        raise Refused(422, (CONTROL, f"{CONTROL} must be a list of at most {MOST} objects"))
    units = tuple(_unit(one, f"{CONTROL}[{place}]", limits) for place, one in enumerate(value))
    if len({one.guess_mode for one in units}) > 1:
        raise Refused(422, (CONTROL, f"{CONTROL}: guess_mode must be the same for all"))
    return units


def _unit(value: object, where: str, limits: Limits) -> Unit:
    if not isinstance(value, dict):
        raise Refused(422, (where, f"{where} must be an object with {', '.join(FIELDS)}"))
    if wrong := [name for name in value if name not in FIELDS]:
        name = f"{where}.{wrong[0][:80]}"
        raise Refused(422, (name, f"{name} is no field here; these are {', '.join(FIELDS)}"))
    found = {}
    for name, (kind, default, allowed) in FIELDS.items():
        found[name] = default if value.get(name) is None else value[name]
        is_number = isinstance(found[name], int) and kind == float | int
        if not matches(found[name], kind) or is_number and isinstance(found[name], bool):
            raise Refused(422, (f"{where}.{name}", f"{where}.{name} must be {allowed}"))
    data = pictures.decode_base64(found["image"], f"{where}.image")
    image = pictures.open_sent(data, f"{where}.image", limits.max_pixels)
    numbers = {name: float(found[name]) for name in ("scale", "start", "end")}
    for name in ("start", "end"):
        if not 0 <= numbers[name] <= 1:
            why = f"{where}.{name} is {numbers[name]:g}; it must be a number from 0 to 1"
            raise Refused(422, (f"{where}.{name}", why))
    canny = _thresholds(found["canny"], f"{where}.canny")
    rest = {name: found[name] for name in ("guess_mode", "fit")}
    return Unit(found["model"], image, **numbers, canny=canny, **rest)


def _thresholds(value: bool | list[Any], where: str) -> tuple[float, float] | None:
    if isinstance(value, bool):
        return CANNY if value else None
    is_pair = len(value) == 2 and all(type(one) in (int, float) and one >= 0 for one in value)
    if not is_pair or value[0] > value[1]:
        raise Refused(422, (where, f"{where} must be true, false or two numbers of 0 or more, the "
                            "lower one first"))  # fmt: skip
    return float(value[0]), float(value[1])


def settings_of_units(
    units: tuple[Unit, ...], tunings: Tunings, gallery: Gallery | None
) -> dict[str, Any]:
    """The settings that units are; their pictures are written into the gallery's inputs, but with
    None for it, which is for looking whether all is in order.

    Raises Refused (422): ControlNets that are not there.
    """
    if not units:
        return {}
    control = []
    for place, one in enumerate(units):
        path = tunings.controls.get(one.model)
        if path is None:
            where, known = f"{CONTROL}[{place}].model", ", ".join(tunings.controls) or "none at all"
            why = f"{where} is {one.model[:80]!r}; there is no such ControlNet here, only {known}"
            raise Refused(422, (where, why))
        try:
            control.append(str(ControlChoice.parse(f"{path}:{one.scale!r}")))
        except ConfigError as error:
            where = f"{CONTROL}[{place}].scale"
            raise Refused(422, (where, f"{where}: {str(error).partition(': ')[2]}")) from error
    hints = [
        str(HintChoice(pictures.keep_picture(gallery.out, one.image, CONTROL), one.canny, one.fit))
        if gallery is not None else CONTROL for one in units
    ]  # fmt: skip
    return {
        "control": control, "hint": hints, "control_start": [one.start for one in units],
        "control_end": [one.end for one in units], "guess_mode": units[0].guess_mode,
    }  # fmt: skip


def names_in(request: Mapping[str, Any], tunings: Tunings) -> list[dict[str, Any]]:
    """The settings of ControlNets in a request's JSON as `units_of` takes them, but for pictures;
    `image` is the name of each one's file."""
    named = {str(path): name for name, path in tunings.controls.items()}
    found = []
    starts, ends = request.get("control_start") or [0.0], request.get("control_end") or [1.0]
    hints = request.get("hint", [])
    for place, (spelled, hint) in enumerate(zip(request.get("control", []), hints, strict=False)):
        choice, shown = ControlChoice.parse(spelled), HintChoice.parse(hint)
        found.append({
            "model": named.get(str(choice.file)), "image": shown.file.name, "scale": choice.scale,
            "start": starts[min(place, len(starts) - 1)], "end": ends[min(place, len(ends) - 1)],
            "canny": False if shown.canny is None else [*shown.canny],
            "guess_mode": bool(request.get("guess_mode")), "fit": shown.fit,
        })  # fmt: skip
    return found
