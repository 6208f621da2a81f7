"""The units of the web UI's extension for ControlNets, `alwayson_scripts.controlnet.args`, as
ours."""

from collections.abc import Mapping
from typing import Any

from ldm_jax.web.refused import Refused

SCRIPT = "controlnet"
"""The extension's name, in any case of letters."""
MODULES = ("none", "canny")
"""What a picture can be made into before a ControlNet is shown it."""
OURS = {
    "model": "model", "image": "image", "input_image": "image", "weight": "scale",
    "guidance_start": "start", "guidance_end": "end",
}  # fmt: skip
"""Fields that say the same in other words."""
BALANCED = (0, "Balanced", None)
CONTROLLED = (2, "ControlNet is more important")
"""Values of `control_mode`; the second is guess mode."""
FITS: dict[str, str] = {
    "just resize": "stretch", "crop and resize": "crop", "resize and fill": "fill",
    "scale to fit (inner fit)": "crop", "inner fit (scale to fit)": "crop",
    "envelope (outer fit)": "fill", "outer fit (shrink to fit)": "fill",
}  # fmt: skip
"""Names of `resize_mode` and what they are here; the last four are older ones."""
RESIZE_MODES = ("Just Resize", "Crop and Resize", "Resize and Fill")
"""Those that stand for 0, 1 and 2."""
USED = (*OURS, "enabled", "module", "control_mode", "threshold_a", "threshold_b", "resize_mode")
WITHOUT_EFFECT = (
    "low_vram", "lowvram", "pixel_perfect", "processor_res", "save_detected_map", "hr_option",
    "input_mode", "use_preview_as_input", "is_ui",
)  # fmt: skip
"""Edges are found at the size of drawing, whatever these say."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "mask": (None, ""), "mask_image": (None, ""), "advanced_weighting": (None, []),
    "effective_region_mask": (None, ""), "ipadapter_input": (None, []), "batch_images": (None, ""),
    "union_control_type": (None, "Unknown"), "inpaint_crop_input_image": (None, False, True),
    "generated_image": (None, ""), "pulid_mode": (None, "Fidelity"), "batch_mask_dir": (None, ""),
    "loopback": (None, False), "output_dir": (None, ""),
}  # fmt: skip
"""Fields of what is not here, and the values at which they ask for nothing."""


def units_of_script(script: Any) -> list[dict[str, Any]]:
    """The units that are enabled, as POST /api/jobs takes them. Raises Refused (422), naming the
    field."""
    args = script.get("args") if isinstance(script, Mapping) else None
    if not isinstance(args, list) or not all(isinstance(one, Mapping) for one in args):
        where = f"alwayson_scripts.{SCRIPT}"
        raise Refused(422, (where, f"{where} must have args, a list of objects"))
    found = [
        (place, one) for place, one in enumerate(args) if one.get("enabled", True) is not False
    ]
    return [_unit(one, f"alwayson_scripts.{SCRIPT}.args[{place}]") for place, one in found]


def _unit(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    def refuse(name: str, why: str) -> Refused:
        return Refused(422, (f"{where}.{name}", f"{where}.{name} {why}"))

    for name, value in given.items():
        if name in NEUTRAL and not any(value == one for one in NEUTRAL[name]):
            raise refuse(name, f"asks for what is not here; leave it out, or give one of "
                               f"{', '.join(map(str, NEUTRAL[name]))}")  # fmt: skip
        if name not in (*USED, *WITHOUT_EFFECT, *NEUTRAL):
            raise refuse(name[:80], f"is no field here; these are {', '.join(USED)}")
    unit = {
        OURS[name]: value for name, value in given.items() if name in OURS and value is not None
    }
    if isinstance(unit.get("image"), Mapping):  # the older form, with a mask beside it
        if unit["image"].get("mask"):
            raise refuse("image", "has a mask, which is not used here; leave it out")
        unit["image"] = unit["image"].get("image")
    module = given.get("module") or "none"
    if not isinstance(module, str) or module.lower() not in MODULES:
        raise refuse("module", f"is {module!r:.80}; it must be one of {', '.join(MODULES)}")
    if module.lower() == "canny":
        unit["canny"] = _thresholds(given)
    mode = given.get("control_mode")
    if isinstance(mode, bool) or mode not in (*BALANCED, *CONTROLLED):
        raise refuse("control_mode", f"is {mode!r:.80}; it must be 'Balanced', or 'ControlNet is "
                                     "more important', which is guess mode")  # fmt: skip
    fit = given.get("resize_mode")
    fit = RESIZE_MODES[1] if fit is None else fit  # as the extension has it
    if type(fit) is int and 0 <= fit < len(RESIZE_MODES):
        fit = RESIZE_MODES[fit]
    if not isinstance(fit, str) or fit.lower() not in FITS:
        known = ", ".join(f"{name!r} ({place})" for place, name in enumerate(RESIZE_MODES))
        raise refuse("resize_mode", f"is {fit!r:.80}; it must be one of {known}")
    return unit | {"guess_mode": mode in CONTROLLED, "fit": FITS[fit.lower()]}


def _thresholds(given: Mapping[str, Any]) -> Any:
    """Those of Canny's edges; -1, which clients send, is the usual one."""
    usual = (100.0, 200.0)
    pair = [given.get(name) for name in ("threshold_a", "threshold_b")]
    return [
        own if one in (None, -1) else one for one, own in zip(pair, usual, strict=True)
    ]  # fmt: skip
