"""What there is to choose from, as the community's clients list it; what is not here is an empty
list."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ldm_jax.web.arguments import Arguments
from ldm_jax.web.model_list import Entry, ModelList
from ldm_jax.web.sdapi.sampler_names import samplers, schedulers
from ldm_jax.web.worker import Loaded

UPSCALERS = [
    {"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 4.0}
]  # fmt: skip
"""The one that does nothing stands for that there is none, as in the web UI."""
LISTS: dict[str, Any] = {
    "samplers": samplers(), "schedulers": schedulers(), "upscalers": UPSCALERS,
    "latent-upscale-modes": [], "sd-vae": [], "prompt-styles": [],
    "scripts": {"txt2img": [], "img2img": []}, "script-info": [],
}  # fmt: skip
"""By the last part of their paths; they are the same always."""


def models(listed: ModelList) -> list[dict[str, Any]]:
    """GET sd-models. What is called a file's name is that of the list: paths stay here."""
    return [_model(entry) for entry in listed.scan() if entry.draws]


def _model(entry: Entry) -> dict[str, Any]:
    return {
        "title": entry.name, "model_name": entry.name, "hash": None, "sha256": None,
        "filename": entry.name, "config": None,
    }  # fmt: skip


def adapters(listed: ModelList) -> list[dict[str, Any]]:
    """GET loras: what prompts name as `<lora:NAME:1>`."""
    return [
        {"name": name, "alias": name, "path": name, "metadata": {}}
        for name in listed.tunings.adapters()
    ]


def hypernetworks(listed: ModelList) -> list[dict[str, Any]]:
    """GET hypernetworks: what prompts name as `<hypernet:NAME:1>`."""
    return [{"name": name, "path": name} for name in listed.tunings.hypernetworks()]


def embeddings(listed: ModelList, loaded: Loaded | None) -> dict[str, dict[str, Any]]:
    """GET embeddings: the words of prompts that the model in memory knows, and those of files for
    text encoders of another width; without a model, all."""
    if loaded is None:
        return {"loaded": _words(listed.tunings.embeddings()), "skipped": {}}
    shelf = loaded.model.pipeline.embeddings
    return {"loaded": _words(shelf.all), "skipped": _words(shelf.skipped)}


def _words(found: Iterable[Any]) -> dict[str, Any]:
    return {
        one.name: {
            "step": one.step, "sd_checkpoint": None, "sd_checkpoint_name": None,
            "shape": one.width, "vectors": len(one.vectors),
        }
        for one in found
    }  # fmt: skip


def flags(arguments: Arguments) -> dict[str, Any]:
    """GET cmd-flags"""
    return {
        "api": True, "listen": not arguments.is_loopback, "port": arguments.port,
        "api_auth": any(arguments.credentials), "nowebui": False,
        "share": False, "ckpt": None,
    }  # fmt: skip


def memory() -> dict[str, Any]:
    """GET memory: this machine's and this process's, in bytes, where the system tells."""
    try:
        words = [line.split() for line in Path("/proc/meminfo").read_text().splitlines()]
        told = {name.rstrip(":"): int(value) * 1024 for name, value, *_ in words}
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        used = pages * os.sysconf("SC_PAGE_SIZE")
        ram: dict[str, Any] = {
            "free": told["MemAvailable"], "used": used, "total": told["MemTotal"]
        }  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        ram = {"error": str(error)}
    return {"ram": ram, "cuda": {"error": "devices are not asked while they draw"}}
