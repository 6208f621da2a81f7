"""Drawn pictures as files: each says how it was made, in this project's words and the web UI's."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ldm_jax import infotext
from ldm_jax.pictures import grid, save_png
from ldm_jax.training.files import write_atomically

CHUNK = "ldm_jax"
"""The PNG's text chunk with all settings, as JSON."""
MANIFEST = "manifest.json"


def write_drawings(
    out: Path,
    images: Sequence[UInt8[np.ndarray, "h w 3"]],
    wishes: Sequence[dict[str, Any]],
    settings: dict[str, Any],
    versions: dict[str, str],
) -> Path:
    """Writes one PNG for each image, `grid.png` and `manifest.json`; returns the grid's path.

    `wishes` holds for each image its `condition`, `prompt_number` and `image_number`; `settings`
    what all have in common. The pictures of a former manifest in `out` are deleted first, and
    nothing else.
    """
    _remove_former(out)
    files = []
    for image, wish in zip(images, wishes, strict=True):
        name = f"{wish['prompt_number']:04d}_{wish['image_number']:04d}.png"
        here = settings | wish
        text = {CHUNK: json.dumps(here)}
        if isinstance(wish["condition"], str):
            text[infotext.CHUNK] = parameters(here)
        save_png(out / name, image, text)
        digest = hashlib.sha256((out / name).read_bytes()).hexdigest()
        files.append(
            {"file": name, "condition": wish["condition"], "image": wish["image_number"],
             "sha256": digest}
        )  # fmt: skip
    manifest = {"settings": settings, "versions": versions, "images": files}
    write_atomically(out / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    conditions = [wish["condition"] for wish in wishes]
    labels = None if all(c is None for c in conditions) else [str(c) for c in conditions]
    most = max(wish["image_number"] for wish in wishes) + 1
    small = _same_size(images)
    columns = min(8, most if most > 1 else len(wishes))
    scale = max(1, 128 // small.shape[1])
    save_png(out / "grid.png", grid(small, columns, labels=labels, scale=scale))
    return out / "grid.png"


def parameters(settings: dict[str, Any]) -> str:
    """The web UI's `parameters` text of one picture."""
    named = infotext.sampler_settings(settings["sampler"], settings["spacing"])
    lines = {
        "Steps": settings["steps"],
        **named,
        "CFG scale": f"{settings['guidance_scale']:g}",
        "Seed": settings["seed"],
        "Size": f"{settings['width']}x{settings['height']}",
        "Model": Path(settings["model"]).stem,
    }
    if settings.get("init_image"):
        lines["Denoising strength"] = f"{settings['strength']:g}"
    if settings.get("clip_skip", 1) > 1:
        lines["Clip skip"] = settings["clip_skip"]
    if settings["sampler"] == "ddim" and settings["eta"]:
        lines["Eta DDIM"] = f"{settings['eta']:g}"
    lines["Version"] = "ldm_jax"
    try:
        return infotext.format_parameters(
            infotext.Infotext(
                settings["condition"], settings["negative_prompt"] or "",
                {key: str(value) for key, value in lines.items()},
            )
        )  # fmt: skip
    except infotext.InfotextError:
        # A prompt that this text cannot hold is still in the other chunk.
        return ", ".join(f"{key}: {value}" for key, value in lines.items())


def read_drawing(path: Path) -> dict[str, Any]:
    """The settings of a picture that `write_drawings` or the web UI wrote.

    Of the web UI's pictures: prompts, sampler, spacing, steps, guidance, seed, size, strength and
    clip skip. Its random numbers are others, so the picture will be another.

    Raises:
        InfotextError: not a PNG, or one without settings, or with settings that are not here.
    """
    chunks = infotext.read_png(path)
    if CHUNK in chunks:
        try:
            return dict(json.loads(chunks[CHUNK]))
        except (ValueError, TypeError) as error:
            raise infotext.InfotextError(f"{path}: damaged settings: {error}") from error
    if infotext.CHUNK not in chunks:
        raise infotext.InfotextError(
            f"{path} does not say how it was made: it has no text chunk {CHUNK!r} or "
            f"{infotext.CHUNK!r}"
        )
    info = infotext.parse_parameters(chunks[infotext.CHUNK])
    try:
        return _from_infotext(info)
    except (ValueError, KeyError) as error:
        raise infotext.InfotextError(f"{path}: {error}") from error


def _from_infotext(info: infotext.Infotext) -> dict[str, Any]:
    settings = info.settings
    sampler, spacing = infotext.read_sampler(settings)
    found: dict[str, Any] = {
        "condition": info.prompt, "negative_prompt": info.negative_prompt or None,
        "sampler": sampler, "spacing": spacing, "steps": int(settings["Steps"]),
    }  # fmt: skip
    for key, name, kind in (
        ("CFG scale", "guidance_scale", float),
        ("Seed", "seed", int),
        ("Denoising strength", "strength", float),
        ("Clip skip", "clip_skip", int),
        ("Eta DDIM", "eta", float),
    ):
        if key in settings:
            found[name] = kind(settings[key])
    if "Size" in settings:
        found["width"], found["height"] = (int(s) for s in settings["Size"].split("x"))
    return found


def _same_size(images: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "n h w 3"]:
    """All images with thumbnails for large ones, so that a grid of many stays a file of some MB."""
    stacked = np.stack(images)
    step = max(1, -(-max(stacked.shape[1:3]) // 512))
    return stacked[:, ::step, ::step]


def _remove_former(out: Path) -> None:
    manifest = out / MANIFEST
    if manifest.exists():
        for picture in json.loads(manifest.read_text())["images"]:
            (out / Path(picture["file"]).name).unlink(missing_ok=True)
        manifest.unlink()
