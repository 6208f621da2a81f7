"""What a model can be asked for, for whoever shows a form: the settings of a request with their
types, ranges, words and usual values, as `config/` declares them."""

import math
import typing
from typing import TYPE_CHECKING, Any

from ldm_jax.cli import options
from ldm_jax.cli.sample_arguments import FIRST, MORE
from ldm_jax.config import (
    ClassConditioner,
    CLIPText,
    ConfigError,
    LowResConditioner,
    Sampling,
    TextConditioner,
    find,
)
from ldm_jax.config.checks import Within, field_hints
from ldm_jax.config.conditioning import WITH_EMPTY
from ldm_jax.config.request import FILES, Request, kinds, needs, paths
from ldm_jax.web.gallery import AS_DATA
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.pictures import FORMATS

if TYPE_CHECKING:
    from ldm_jax.generation.library import Model

BY_NAME = ("vae", "text_encoder", "weak_model", "classifier")
"""Settings that name models, which are named as the server lists them."""
ABSENT = tuple(name for name in paths() if name not in (*AS_DATA, *BY_NAME)) + (
    "latents_row", "control_start", "control_end", "guess_mode",
)  # fmt: skip
"""Settings that nobody can give over HTTP: paths, and what needs one."""
_TYPES = {bool: "flag", int: "integer", float: "number", str: "text"}
_OF_CAPTIONS = ("prompt", "negative_prompt", "unknown_words", "literal_prompts", "clip_skip",
                "text_encoder")  # fmt: skip
_OF_CONDITIONS = ("guidance_scale", "guidance_schedule", "guidance_interval", "guidance_rescale",
                  "autoguidance_scale", "weak_model")  # fmt: skip
_BESIDE_PICTURES = ("mask_blur", "only_masked", "noise_level")
"""Settings that stand beside the picture or the file that they are about."""
_OF_CLASSES = ("classes", "classifier", "classifier_scale", "classifier_form")


def facts_of(model: "Model") -> dict[str, Any]:
    """All that a form needs of a model in memory: its inputs, sizes, usual values, and limits."""
    from ldm_jax.generation.defaults import MASK_BLUR, usual_strength

    config = model.pipeline.config
    usual = _usual(model)
    height, width = config.sides
    side = {"multiple": config.side_multiple, "one_size": config.draws_one_size}
    text = find(config.conditioners, TextConditioner)
    classes = find(config.conditioners, ClassConditioner)
    small = find(config.conditioners, LowResConditioner)
    noise = None if small is None else small.noise
    if noise is not None:
        usual["noise_level"] = noise.usual_level
    return {
        "inputs": [*config.inputs],
        "sides": {"height": side | {"default": height}, "width": side | {"default": width}},
        "usual": usual | {"mask_blur": float(MASK_BLUR), "strength": usual_strength(masked=False)},
        "usual_masked": {"strength": usual_strength(masked=True)},
        "classes": None if classes is None else classes.num_classes,
        "token_limit": None if text is None else token_limit(text),
        "noise_levels": None if noise is None else noise.trained_levels,
        "is_inpainting": config.is_inpainting,
        "words": [one.name for one in model.pipeline.embeddings.all],
        "clip": text is not None and isinstance(text.encoder, CLIPText),
    }


def _usual(model: "Model") -> dict[str, Any]:
    """What model and sampler have where a request says nothing."""
    try:
        resolved = model.pipeline.resolve_sampling(Sampling())
    except ConfigError:
        return {}
    found = Request(sampling=resolved.sampling).to_dict()
    return {name: value for name, value in found.items() if name not in ("height", "width")}


def token_limit(text: TextConditioner) -> int:
    """Tokens of a caption, or of each of CLIP's chunks, without those that frame them."""
    return text.encoder.max_length - (2 if text.chunked else 0)


def form(name: str, facts: dict[str, Any], models: ModelList, limits: Limits) -> dict[str, Any]:
    """The form of the model called `name`, of which `facts_of` gave the facts."""
    side = math.isqrt(limits.max_pixels)
    sides = {name: fact | {"most": side - side % fact["multiple"]}
             for name, fact in facts["sides"].items()}  # fmt: skip
    listed = [_setting(option, facts, models) for option in _options(facts)]
    takes_captions = "caption" in facts["inputs"]
    most = {"num": limits.max_pictures, "steps": limits.max_steps, "height": side, "width": side}
    return {
        "model": name, "inputs": facts["inputs"], "sides": sides,
        "settings": [s | {"most": most.get(s["name"], s["most"])} for s in listed],
        "token_limit": facts["token_limit"], "chunks": facts["clip"],
        "adapters": models.tunings.adapters() if takes_captions else [],
        "hypernetworks": models.tunings.hypernetworks() if takes_captions else [],
        "words": facts["words"], "controls": [*models.tunings.controls],
        "takes_picture": True, "picture_formats": FORMATS,
        "takes_mask": True, "needs_mask": facts["is_inpainting"],
        "files": [
            {"name": name, "help": help_of(name)} for name in FILES if name in facts["inputs"]
        ],
    }  # fmt: skip


def help_of(name: str) -> str:
    """What the command line says of a setting."""
    return options.options_of(*kinds())[name].doc.replace("--", "")


def all_options() -> dict[str, options.Option]:
    """All settings that can be asked for over HTTP by their names, as the command line has them."""
    found = options.options_of(*kinds())
    return {n: option for n, option in found.items() if n not in (*ABSENT, *AS_DATA)}


def _options(facts: dict[str, Any]) -> list[options.Option]:
    """The settings that a model has, those that most people need first."""
    known = all_options()
    order = [name for names in (FIRST | MORE).values() for name in names if name in known]
    absent = {"height", "width"} if facts["sides"]["height"]["one_size"] else set()
    if "caption" not in facts["inputs"]:
        absent |= {*_OF_CAPTIONS}
    elif not facts["clip"]:
        absent.add("clip_skip")
    if "label" not in facts["inputs"]:
        absent |= {*_OF_CLASSES}
    if WITH_EMPTY.isdisjoint(facts["inputs"]):
        absent |= {*_OF_CONDITIONS}
    if "edit_given" not in facts["inputs"] or len(WITH_EMPTY & {*facts["inputs"]}) < 2:
        absent.add("image_guidance_scale")
    if "noise_level" not in facts["inputs"]:
        absent.add("noise_level")
    if facts["is_inpainting"]:
        absent |= {"resample", "resample_jump"}
    return [known[name] for name in order if name not in absent]


def _setting(option: options.Option, facts: dict[str, Any], models: ModelList) -> dict[str, Any]:
    name = option.name
    choices: list[str] | None = [*option.choices] or None
    if name == "classifier":
        choices = [entry.name for entry in models.classifiers]
    elif name in BY_NAME:
        choices = [entry.name for entry in models.drawing]
    limit = _range(name)
    if name == "classes" and facts["classes"]:
        limit = Within(0, facts["classes"] - 1)
    if name == "noise_level":
        limit = Within(0, facts["noise_levels"] - 1)
    main = any(name in names for names in FIRST.values()) or name in _BESIDE_PICTURES
    return {
        "name": name, "group": "main" if main else "more",
        "heading": next((h for h, names in MORE.items() if name in names), None),
        "type": "choice" if choices is not None else _TYPES[option.kind], "many": option.many,
        "choices": choices, "default": facts["usual"].get(name, _plain(option.default)),
        "default_masked": facts["usual_masked"].get(name),
        "default_by_side": _by_side() if name == "mask_blur" else None,
        "least": None if limit is None else limit.low, "above": bool(limit and limit.above),
        "most": None if limit is None else limit.high,
        "help": option.doc.replace("--", ""), "needs": needs().get(name),
    }  # fmt: skip


def _by_side() -> list[tuple[int, float]]:
    """Longer sides of a picture from which on a mask's edge has another usual softness, with it."""
    from ldm_jax.generation.defaults import MASK_BLUR, MASK_BLUR_SHARE, usual_mask_blur

    sides = (step * MASK_BLUR_SHARE for step in range(MASK_BLUR + 1))
    return [(side, usual_mask_blur(side)) for side in sides]


def _range(name: str) -> Within | None:
    """The range that the type of a setting, or of each of its entries, declares."""
    for kind in kinds():
        if name in (hints := field_hints(kind)):
            return _within(hints[name])
    return None


def _within(hint: Any) -> Within | None:
    extras = getattr(hint, "__metadata__", ())
    ranges = [extra for extra in extras if isinstance(extra, Within)]
    below = (found for arg in typing.get_args(hint) if (found := _within(arg)) is not None)
    return ranges[0] if ranges else next(below, None)


def _plain(value: Any) -> Any:
    return [*value] if isinstance(value, tuple) else value
