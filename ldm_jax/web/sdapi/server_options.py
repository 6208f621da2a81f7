"""The server's options as the community's clients read and set them: the model, and how many of
CLIP's last layers are left out."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ldm_jax.web.model_list import ModelList
from ldm_jax.web.refused import Refused

MODEL, SKIP = "sd_model_checkpoint", "CLIP_stop_at_last_layers"
FIXED: dict[str, tuple[Any, ...]] = {
    "sd_vae": ("Automatic", "None", None), "samples_format": ("png",), "return_grid": (False,),
    "eta_noise_seed_delta": (0,), "sd_checkpoint_hash": ("", None),
    "enable_emphasis": (True,), "randn_source": ("CPU", "GPU", "NV"),
    "img2img_color_correction": (False,), "sd_hypernetwork": ("None", "", None),
}  # fmt: skip
"""Options that cannot be changed here: the values that they may be given, the present one first."""
_HASH = re.compile(r" \[[0-9a-fA-F]+\]$")


@dataclass(frozen=True)
class Options:
    """What clients can set."""

    checkpoint: str | None = None
    """The model's name; None is the first that is listed."""
    clip_skip: int = 1

    def model(self, models: ModelList) -> str:
        """The name of the model; raises Refused (422) where there is none at all."""
        if self.checkpoint is not None:
            return models.find(self.checkpoint).name
        listed = models.drawing or [e for e in models.scan() if e.draws]
        if not listed:
            raise Refused(422, (MODEL, "there is no model in the folders of this server"))
        return listed[0].name

    def settings(self) -> dict[str, Any]:
        """Our settings for them, but for the model."""
        return {"clip_skip": self.clip_skip} if self.clip_skip > 1 else {}

    @staticmethod
    def optional(changes: Mapping[str, Any]) -> tuple[str, ...]:
        """Those of `settings` that models which do not have them are drawn without: what the
        server's options say is for all models, what a request's own `changes` say is for one."""
        return () if SKIP in changes else ("clip_skip",)

    def to_json(self, models: ModelList) -> dict[str, Any]:
        """As clients read them."""
        listed = models.drawing
        name = self.checkpoint or (listed[0].name if listed else None)
        return {MODEL: name, SKIP: self.clip_skip} | {n: values[0] for n, values in FIXED.items()}


def overridden(options: Options, changes: Mapping[str, Any], models: ModelList) -> Options:
    """`options` with changes; raises Refused (422), naming `override_settings` and the option."""
    try:
        return changed(options, changes, models)
    except Refused as error:
        named = [(f"override_settings.{field}", why) for field, why in error.errors]
        raise Refused(error.status, *named) from error


def changed(options: Options, changes: Mapping[str, Any], models: ModelList) -> Options:
    """`options` with changes; raises Refused (422), naming each that cannot be."""
    wrong: list[tuple[str | None, str]] = []
    for name, value in changes.items():
        if name == MODEL:
            options = replace(options, checkpoint=_model(value, models))
        elif name == SKIP:
            if type(value) is not int or not 1 <= value <= 12:
                wrong.append((SKIP, f"{SKIP} must be a whole number from 1 to 12"))
            else:
                options = replace(options, clip_skip=value)
        elif name not in FIXED:
            wrong.append((name[:80], f"{name[:80]!r} is no option here"))
        elif not any(value == one and type(value) is type(one) for one in FIXED[name]):
            wrong.append((name, f"{name} cannot be changed here; it is {FIXED[name][0]!r}"))
    if wrong:
        raise Refused(422, *wrong)
    return options


def _model(given: Any, models: ModelList) -> str:
    """The listed name of a model that is called by its name or title, or else by its last part,
    with or without a suffix, where only one is called so; raises Refused (422)."""
    if not isinstance(given, str):
        raise Refused(422, (MODEL, f"{MODEL} must be the name of a model"))
    name = _HASH.sub("", given)
    found = models.all_called(name)
    if len(found) > 1:
        raise Refused(422, (MODEL, f"{MODEL} is {name[:80]!r}, which may be any of "
                            f"{', '.join(found)}; give the whole name"))  # fmt: skip
    return found[0] if found else models.find(name, MODEL).name
