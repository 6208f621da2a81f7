"""Drawn pictures as files: each says how it was made, in this project's words and the web UI's."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from ldm_jax.core.files import write_atomically
from ldm_jax.images import infotext
from ldm_jax.images.grid import grid, save_png, save_webp

CHUNK = "ldm_jax"
"""The PNG's text chunk with all settings, as JSON."""
MANIFEST = "manifest.json"
THUMBNAIL = 512
"""Pixels of a picture's longer side in the grid, at most."""


class Drawings:
    """Writes pictures into a folder as they are drawn, and last `grid.png` and `manifest.json`.

    The pictures of a former manifest in the folder are deleted with the first new one, and
    nothing else. A context manager: what was drawn before an error is listed too.
    """

    def __init__(self, out: Path, settings: dict[str, Any], versions: dict[str, str]) -> None:
        self.out, self._settings, self._versions = out, settings, versions
        self._entries: dict[str, dict[str, Any]] = {}
        self._thumbnails: dict[str, UInt8[np.ndarray, "h w 3"]] = {}

    @property
    def grid(self) -> Path:
        """The path of the grid."""
        return self.out / "grid.png"

    def __enter__(self) -> "Drawings":
        return self

    def write(
        self,
        image: UInt8[np.ndarray, "h w 3"],
        wish: dict[str, Any],
        previews: UInt8[np.ndarray, "k h w 3"] | None = None,
        video: bool = False,
    ) -> None:
        """One picture, with its `condition`, `prompt_number`, `image_number` and whatever else.

        `previews`, what the picture was to become on the way, are written beside it as a strip,
        NAME_strip.png, and with `video` as an animated WebP, NAME.webp.
        """
        if not self._entries:
            self.out.mkdir(parents=True, exist_ok=True)
            _remove_former(self.out)
        stem = f"{wish['prompt_number']:04d}_{wish['image_number']:04d}"
        name = f"{stem}.png"
        here = self._settings | wish
        text = {CHUNK: json.dumps(here)}
        if isinstance(wish["condition"], str):
            text[infotext.CHUNK] = parameters(here)
        save_png(self.out / name, image, text)
        digest = hashlib.sha256((self.out / name).read_bytes()).hexdigest()
        self._entries[name] = {
            "file": name, "condition": wish["condition"], "image": wish["image_number"],
            "sha256": digest,
        }  # fmt: skip
        if previews is not None:
            beside = [f"{stem}_strip.png", f"{stem}.webp"][: 1 + video]
            save_png(self.out / beside[0], grid(previews, len(previews)), text)
            if video:
                save_webp(self.out / beside[1], previews)
            self._entries[name]["beside"] = beside
        # A grid of many large pictures should stay a file of some megabytes.
        step = -(-max(image.shape[:2]) // THUMBNAIL)
        self._thumbnails[name] = image[::step, ::step]

    def __exit__(self, *_: object) -> None:
        if not self._entries:
            return
        entries = [self._entries[name] for name in sorted(self._entries)]
        manifest = {"settings": self._settings, "versions": self._versions, "images": entries}
        write_atomically(self.out / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
        images = np.stack([self._thumbnails[entry["file"]] for entry in entries])
        labels = [str(entry["condition"]) for entry in entries]
        per_prompt = len({entry["image"] for entry in entries})
        save_png(
            self.grid,
            grid(
                images, min(8, per_prompt if per_prompt > 1 else len(entries)),
                labels=None if all(e["condition"] is None for e in entries) else labels,
                scale=max(1, 128 // images.shape[1]),
            ),
        )  # fmt: skip


def parameters(settings: dict[str, Any]) -> str:
    """The web UI's `parameters` text of one picture."""
    try:
        named = infotext.sampler_settings(settings["sampler"], settings["spacing"])
    except infotext.InfotextError:
        # A sampler that the web UI does not have; its name here says at least which.
        named = {"Sampler": settings["sampler"]}
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
                settings["condition"], settings.get("negative_prompt") or "",
                {key: str(value) for key, value in lines.items()},
            )
        )  # fmt: skip
    except infotext.InfotextError:
        # A prompt that this text cannot hold is still in the other chunk.
        return ", ".join(f"{key}: {value}" for key, value in lines.items())


def read_drawing(path: Path) -> dict[str, Any]:
    """The settings of a picture that `Drawings` or the web UI wrote.

    Of the web UI's pictures: prompts, sampler, spacing, steps, guidance, seed, size, strength and
    clip skip. Its random numbers are others, so the picture will be another.

    Raises:
        InfotextError: not a PNG, or one without settings, or with settings that are not here.
    """
    chunks = infotext.read_png(path)
    if CHUNK in chunks:
        try:
            found = json.loads(chunks[CHUNK])
        except ValueError as error:
            raise infotext.InfotextError(f"{path}: damaged settings: {error}") from error
        if not isinstance(found, dict):
            raise infotext.InfotextError(f"{path}: damaged settings: they are no object")
        return found
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


def _remove_former(out: Path) -> None:
    manifest = out / MANIFEST
    if manifest.exists():
        for picture in json.loads(manifest.read_text())["images"]:
            for name in (picture["file"], *picture.get("beside", ())):
                (out / Path(name).name).unlink(missing_ok=True)
        manifest.unlink()
