"""From words to `Arguments`, on top of what a picture says of itself."""

import argparse
import typing
from dataclasses import replace
from pathlib import Path
from typing import Any

import tyro

from ldm_jax.cli.arguments import Arguments

PATHS = (
    "init_image", "mask", "latents", "model", "tokenizer", "original_config", "weak_model",
    "classifier",
)  # fmt: skip
"""Options of `DRAWING` that are files or folders."""

DRAWING = (
    "negative_prompt", "literal_prompts", "sampler", "steps", "guidance", "eta", "spacing",
    "sections", "timesteps", "sigmas", "seed", "height", "width", "init_image", "strength", "mask",
    "mask_blur", "invert_mask", "only_masked", "latents", "latents_row", "clip_skip", "tileable",
    "tile", "batch_size", "dtype", "model", "weights", "tokenizer", "prediction", "original_config",
    "guidance_schedule", "guidance_interval", "guidance_rescale", "weak_model",
    "autoguidance_scale", "classifier", "classifier_scale", "classifier_form", "threshold",
    "resample", "resample_jump",
)  # fmt: skip
"""What a picture may say about how it was drawn. Never where to write."""


def parse(arguments: list[str]) -> Arguments:
    """The command line, on top of the settings of the picture that `--from_png` names.

    Raises:
        ValueError: the picture has no settings, or some that make no sense.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--from_png", "--from-png", type=Path)
    path = first.parse_known_args(arguments)[0].from_png
    default = Arguments() if path is None else _from_png(path)
    found = tyro.cli(Arguments, args=arguments, default=default)
    if found.init_image is None and default.strength is not None:
        # The web UI's pictures name a strength, but not the picture that it was for.
        found = replace(found, strength=None)
    if path is not None and (found.prompt, found.prompts, found.classes) != (
        default.prompt, default.prompts, default.classes
    ):  # fmt: skip
        # Other wishes than the picture's.
        keep = {"prompt", "prompts", "classes"} - _given(arguments)
        found = replace(found, **{name: getattr(Arguments(), name) for name in keep})
    return found


def _from_png(path: Path) -> Arguments:
    from ldm_jax.config.files import matches
    from ldm_jax.images.sample_writer import read_drawing

    read = read_drawing(path)
    read["guidance"] = read.get("guidance_scale")
    hints = typing.get_type_hints(Arguments)
    given: dict[str, Any] = {}
    for name in DRAWING:
        value = read.get(name)
        if value is None:
            continue
        if name in ("model", "weak_model") and str(value).startswith("hf:"):
            # A picture cannot make this machine download anything.
            continue
        if name in PATHS and isinstance(value, str):
            value = Path(value)
        given[name] = tuple(value) if isinstance(value, list) else value
    condition = read.get("condition")
    if condition is not None:
        given |= {"classes": (condition,)} if isinstance(condition, int) else {
            "prompt": (condition,)
        }  # fmt: skip
    given["first_prompt"] = read.get("prompt_number", 0)
    given["first_image"] = read.get("image_number", 0)
    for name, value in given.items():
        if not matches(value, hints[name]):
            raise ValueError(f"{path} says that {name} is {value!r}, which it cannot be")
    return Arguments(**given)


def _given(arguments: list[str]) -> set[str]:
    names = (word.split("=")[0].removeprefix("--") for word in arguments if word.startswith("--"))
    return {name.replace("-", "_") for name in names}
