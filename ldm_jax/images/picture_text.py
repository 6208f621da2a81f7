"""What the PNG of a drawn picture says of how it was made, in this project's words and the web
UI's; written and read."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ldm_jax.config.lora_choice import TAG
from ldm_jax.config.request import Request
from ldm_jax.config.request import paths as request_paths
from ldm_jax.config.sampling import Sampling
from ldm_jax.core.reading import FileFormatError, parse_json, shown
from ldm_jax.images import infotext
from ldm_jax.images.adapter_text import (
    Hashes,
    checked_hashes,
    hashes_of,
    web_ui_adapters,
    with_hypernetwork,
)

CHUNK = "ldm_jax"
"""The PNG's text chunk with the request, as JSON."""


@dataclass(frozen=True)
class Written:
    """What a picture says of how it was made."""

    request: Request
    filled: tuple[str, ...]
    """Settings that were filled in with usual values of model and sampler."""
    problems: tuple[str, ...]
    """What the picture says besides, and cannot be used."""
    hashes: Hashes = field(default_factory=dict)
    """As in `picture_text`."""


def picture_text(
    request: Request, about: Mapping[str, Any], hashes: Hashes = MappingProxyType({})
) -> dict[str, str]:
    """The text chunks of one picture's PNG by their keys: its resolved `request`, with what there
    is to say `about` it, and of captions the web UI's too.

    `hashes` are the short ones of the files that it was drawn with, by `lora`, `hypernetwork`,
    `embeddings` or `control`, and by the names that prompts have for them.
    """
    tags = {tag["kind"].lower() for prompt in request.prompt for tag in TAG.finditer(prompt)}
    # Folders of which nothing is in the picture are not told.
    unused = {} if tags & {"lora", "lyco"} else {"lora_dir": None}
    unused |= {} if "hypernet" in tags else {"hypernetwork_dir": None}
    request = replace(request, model=replace(request.model, **unused))
    told = {"hashes": hashes} if hashes else {}
    text = {CHUNK: json.dumps({"request": request.to_dict()} | dict(about) | told)}
    if request.prompt:
        text[infotext.CHUNK] = parameters(request, hashes)
    return text


def parameters(request: Request, hashes: Hashes = MappingProxyType({})) -> str:
    """The web UI's `parameters` text of one picture's resolved request; `hashes` are as in
    `picture_text`. Adapters that were named for the model stand as tags behind the prompt, where
    the web UI looks for them."""
    sampling, model = request.sampling, request.model
    try:
        named = infotext.sampler_settings(sampling.sampler, sampling.spacing)
    except infotext.InfotextError:
        # A sampler that the web UI does not have; its name here says at least which.
        named = {"Sampler": sampling.sampler}
    lines = {
        "Steps": sampling.steps,
        **named,
        "CFG scale": f"{sampling.guidance_scale:g}",
        **_image_scale(sampling),
        "Seed": sampling.seed,
        "Size": f"{sampling.width}x{sampling.height}",
        "Model": Path(model.model).stem,
    }
    if request.picture.init_image is not None:
        lines["Denoising strength"] = f"{sampling.strength:g}"
    if (model.clip_skip or 1) > 1:
        lines["Clip skip"] = model.clip_skip
    if sampling.sampler == "ddim" and sampling.eta:
        lines["Eta DDIM"] = f"{sampling.eta:g}"
    prompt, of_files = web_ui_adapters(request, hashes)
    lines |= of_files
    lines["Version"] = "ldm_jax"
    try:
        return infotext.format_parameters(
            infotext.Infotext(
                prompt, request.negative_prompt or "",
                {key: str(value) for key, value in lines.items()},
            )
        )  # fmt: skip
    except infotext.InfotextError:
        # A prompt that this text cannot hold is still in the other chunk.
        return ", ".join(f"{key}: {value}" for key, value in lines.items())


def _image_scale(sampling: Sampling) -> dict[str, str]:
    """Of models that edit pictures alone."""
    scale = sampling.image_guidance_scale
    return {} if scale is None else {"Image CFG scale": f"{scale:g}"}


def read_written(path: Path, also: Mapping[str, Any] = MappingProxyType({})) -> Written:
    """What a picture that `SampleWriter` or the web UI wrote says of itself; what `also` says goes
    before it.

    Of the web UI's pictures: prompts, sampler, spacing, steps, guidance, seed, size, strength and
    clip skip. Its random numbers are others, so the picture will be another.

    Raises:
        FileFormatError: not a PNG, or one without settings.
    """
    chunks = infotext.read_png(path)
    problems: list[str] = []
    if CHUNK in chunks:
        found = parse_json(path, f"its text {CHUNK!r}", chunks[CHUNK])
        values, filled = found.get("request"), found.get("filled", [])
        hashes = checked_hashes(found.get("hashes"))
        if not isinstance(values, dict) or not isinstance(filled, list):
            raise FileFormatError(path, f"its text {CHUNK!r} is damaged: it holds no request")
    elif infotext.CHUNK in chunks:
        info = with_hypernetwork(infotext.parse_parameters(chunks[infotext.CHUNK]))
        values, problems = infotext.as_settings(info)
        filled, hashes = [], hashes_of(info.settings)
        if "strength" in values and "init_image" not in also:
            del values["strength"]
            problems.append("its strength is for a picture that it does not name (--init_image)")
    else:
        raise FileFormatError(
            path, f"does not say how it was made: it has no text {CHUNK!r} or {infotext.CHUNK!r}"
        )
    values = dict(values) | dict(also)
    for name in request_paths():
        if str(values.get(name, "")).startswith("hf:"):
            # A picture cannot make this machine download anything.
            problems.append(f"{name} is {shown(values.pop(name))}, which is named by you or not at "
                            "all")  # fmt: skip
    # A picture is one, whatever it says.
    request, unusable = Request.usable(values | {"num": 1})
    here = request.to_dict()
    filled = tuple(name for name in filled if isinstance(name, str) and name in here)
    return Written(request, filled, (*problems, *unusable), hashes)
