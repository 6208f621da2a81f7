"""The fields of txt2img and img2img: which mean something here, and at which values the others ask
for nothing."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ldm_jax.config.checks import allowed, matches
from ldm_jax.config.request import FILES
from ldm_jax.web.refused import Refused, json_words
from ldm_jax.web.sdapi.control_units import SCRIPT as CONTROL_SCRIPT
from ldm_jax.web.sdapi.control_units import units_of_script

Fields = Mapping[str, Any]

USED: dict[str, tuple[Any, Any]] = {
    "prompt": (str, ""), "negative_prompt": (str, ""), "seed": (int, -1), "steps": (int, 50),
    "cfg_scale": (float, 7.0), "width": (int, 512), "height": (int, 512),
    "sampler_name": (str, ""), "sampler_index": (str, ""), "scheduler": (str, "Automatic"),
    "batch_size": (int, 1), "n_iter": (int, 1), "eta": (float | None, None),
    "denoising_strength": (float, 0.75), "tiling": (bool, False),
    "override_settings": (dict, {}), "override_settings_restore_afterwards": (bool, True),
    "save_images": (bool, False), "send_images": (bool, True),
}  # fmt: skip
"""Of both: type, and what it is where it is left out or null."""
USED_OF_PICTURES: dict[str, tuple[Any, Any]] = {
    "init_images": (list, []), "mask": (str, ""), "mask_blur": (float | None, None),
    "mask_blur_x": (float, 4.0), "mask_blur_y": (float, 4.0), "inpainting_fill": (int, 0),
    "inpaint_full_res": (bool, True), "inpaint_full_res_padding": (int, 0),
    "inpainting_mask_invert": (int, 0), "include_init_images": (bool, False),
    "resize_mode": (int, 0),
}  # fmt: skip
"""Of img2img alone."""
WITHOUT_EFFECT: dict[str, Any] = {
    "do_not_save_samples": bool, "do_not_save_grid": bool, "disable_extra_networks": bool,
    "force_task_id": str, "subseed": int, "refiner_switch_at": float, "hr_scale": float,
    "hr_upscaler": str, "hr_second_pass_steps": int, "hr_resize_x": int, "hr_resize_y": int,
    "hr_checkpoint_name": str, "hr_sampler_name": str, "hr_scheduler": str, "hr_prompt": str,
    "hr_negative_prompt": str, "hr_cfg": float, "firstphase_width": int, "firstphase_height": int,
    "s_tmin": float, "s_tmax": float,
}  # fmt: skip
"""Fields that say how something is done that is not asked for, as long as the neutral values of
others hold: any value of their type is accepted."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "styles": ([],), "subseed_strength": (0,), "seed_resize_from_w": (0, -1),
    "seed_resize_from_h": (0, -1), "restore_faces": (False,), "refiner_checkpoint": ("", "None"),
    "enable_hr": (False,), "s_churn": (0,), "s_noise": (1,), "s_min_uncond": (0,),
    "script_name": ("", "None"), "script_args": ([],), "infotext": ("",), "comments": ({},),
    "firstpass_image": ("",),
}  # fmt: skip
"""Fields of what is not here: the values at which they ask for nothing; null is one of all."""
NEUTRAL_OF_PICTURES: dict[str, tuple[Any, ...]] = {
    "image_cfg_scale": (0, 1.5), "initial_noise_multiplier": (0, 1),
    "mask_round": (True,), "latent_mask": ("",),
}  # fmt: skip
"""Of img2img alone; "pix2pix" models, which `image_cfg_scale` is for, are not read here."""
SCRIPTS = "alwayson_scripts"
FILES_SCRIPT = "condition files"
"""The one script that there is. Its argument is an object of what models are conditioned on."""
SHOWN = (*FILES, "noise_level")
"""What that object may have: files as data, and what is said of them."""
LARGEST = 2**53
"""Numbers beyond this are none of any field."""


@dataclass(frozen=True)
class Checked:
    """Fields of the right types, none of which asks for what is not here."""

    values: Fields
    """Of those that are used, with the values of those that were left out."""
    is_img2img: bool
    shown: Fields = field(default_factory=dict)
    """Some of `SHOWN`."""
    controls: list[dict[str, Any]] = field(default_factory=list)
    """ControlNets, as POST /api/jobs takes them."""

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def check(fields: Fields, is_img2img: bool) -> Checked:
    """`fields`, found to be in order; raises Refused (422) naming each that is not."""
    used, without_effect, neutral = USED, WITHOUT_EFFECT, NEUTRAL | NEUTRAL_OF_PICTURES
    if is_img2img:
        used = USED | USED_OF_PICTURES
    else:  # clients send many fields of pictures along, but no picture
        without_effect = WITHOUT_EFFECT | {n: kind for n, (kind, _) in USED_OF_PICTURES.items()}
        neutral |= {"init_images": ([],), "mask": ("",)}
    wrong: list[tuple[str | None, str]] = []
    values, shown = {name: default for name, (_, default) in used.items()}, {}
    for name, value in fields.items():
        short = name[:80]
        value = _number(value, (used | without_effect).get(name))
        if name == SCRIPTS:
            wrong += _scripts(value)
            shown = {} if wrong else _shown(value)
        elif name in used:
            if value is not None:
                values[name] = value
            if value is not None and not _is(value, used[name][0]):
                wrong.append((name, f"{name} must be {_allowed(used[name][0])}"))
        elif name in neutral:
            if value is not None and not any(_equal(value, one) for one in neutral[name]):
                told = " or ".join(json.dumps(one) for one in neutral[name])
                why = f"{name} asks for what is not here; leave it out, or give {told}"
                wrong.append((name, why))
        elif name not in without_effect:
            wrong.append((short, f"{short!r} is no field of such a request"))
        elif value is not None and not _is(value, without_effect[name]):
            wrong.append((name, f"{name} must be {_allowed(without_effect[name])}"))
    if wrong:
        raise Refused(422, *wrong)
    scripts = fields.get(SCRIPTS) or {}
    units = [
        u for name, one in scripts.items() if _controls(name, one) for u in units_of_script(one)
    ]
    return Checked(values, is_img2img, shown, units)


def _allowed(kind: Any) -> str:
    return {dict: "an object", list: "a list"}.get(kind) or json_words(allowed(kind))


def _number(value: Any, kind: Any) -> Any:
    """As the web UI takes it: a number that is written as text, or a whole one with a point."""
    kind = kind[0] if isinstance(kind, tuple) else kind
    if kind not in (int, float, float | None) or not isinstance(value, str | float):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if not math.isfinite(number):
        return value
    return int(number) if kind is int and number.is_integer() else number


def _is(value: Any, kind: Any) -> bool:
    """Whether it is of that type, and no number that no field has."""
    is_number = isinstance(value, int | float)
    return matches(value, kind) and not (is_number and abs(value) > LARGEST)


def _equal(value: Any, neutral: Any) -> bool:
    """Equal, and not because True is 1."""
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _scripts(value: Any) -> list[tuple[str | None, str]]:
    """What is wrong with scripts that are always on: there is one, and others ask for nothing
    only without arguments."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [(SCRIPTS, f"{SCRIPTS} must be an object")]
    asking = {
        name: script for name, script in value.items()
        if not (isinstance(script, dict) and script.get("args") in ([], [False], None))
        and not _controls(name, script)
    }  # fmt: skip
    wrong = _wrongly_shown(asking.pop(FILES_SCRIPT)) if FILES_SCRIPT in asking else []
    return wrong + [
        (f"{SCRIPTS}.{name[:80]}", f"there is no script {name[:80]!r} here; leave it out")
        for name in asking
    ]


def _controls(name: str, script: Any) -> bool:
    """Whether it is the script of ControlNets, and asks for something."""
    asks = not (isinstance(script, dict) and script.get("args") in ([], [False], None))
    return name.lower() == CONTROL_SCRIPT and asks


def _wrongly_shown(script: Any) -> list[tuple[str | None, str]]:
    where, known = f"{SCRIPTS}.{FILES_SCRIPT}", ", ".join(SHOWN)
    args = script.get("args") if isinstance(script, dict) else None
    if not (isinstance(args, list) and len(args) == 1 and isinstance(args[0], dict)):
        return [(where, f"{where} must have args with one object, which may have {known}")]
    return [
        (f"{where}.{name[:80]}", f"{name[:80]!r} is nothing that models are shown: {known}")
        for name in args[0] if name not in SHOWN
    ]  # fmt: skip


def _shown(value: Any) -> Fields:
    args = ((value or {}).get(FILES_SCRIPT) or {}).get("args")
    return {n: v for n, v in args[0].items() if v is not None} if args and args[0] else {}
