"""Adapters, hypernetworks and embeddings in the web UI's text: tags behind the prompt, and the
settings `Lora hashes`, `TI hashes` and `Hypernet`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ldm_jax.config.lora_choice import LoraChoice
from ldm_jax.config.request import Request
from ldm_jax.images.infotext import Infotext

Hashes = Mapping[str, Mapping[str, str]]
"""By kind and name."""
SETTINGS = {"lora": "Lora hashes", "embeddings": "TI hashes"}
"""The web UI's name of each kind's hashes."""
HYPERNETWORK, STRENGTH, HASH = "Hypernet", "Hypernet strength", "Hypernet hash"
HASH_DIGITS = 10
"""Before January 2023 it was another hash, with 8 digits, which says nothing of the one here."""
_SIGNS = str.maketrans("", "", ":,")
"""Signs that the web UI leaves out of names beside hashes."""


def web_ui_adapters(request: Request, hashes: Hashes) -> tuple[str, dict[str, str]]:
    """The prompt with tags of what was chosen for the model, and the settings that say the rest.

    One hypernetwork alone is said as the web UI did before it had tags, with its hash; of several
    only tags can say the order.
    """
    (prompt,), model, said = request.prompt[:1], request.model, {}
    tags = [_tag("lora", one) for one in model.lora]
    if len(model.hypernetwork) == 1:
        (choice,) = map(LoraChoice.parse, model.hypernetwork)
        name = _name(choice.file)
        said = {HYPERNETWORK: name, STRENGTH: f"{choice.unet:g}"}
        short = hashes.get("hypernetwork", {}).get(name)
        said |= {} if short is None else {HASH: short}
    else:
        tags += [_tag("hypernet", one) for one in model.hypernetwork]
    for kind, setting in SETTINGS.items():
        own = {name.translate(_SIGNS): short for name, short in hashes.get(kind, {}).items()}
        if own:
            said[setting] = ", ".join(f"{name}: {short}" for name, short in own.items())
    return " ".join([prompt, *tags]) if tags else prompt, said


def _tag(kind: str, spelled: str) -> str:
    choice = LoraChoice.parse(spelled)
    strengths = dict.fromkeys((f"{choice.text_encoder:g}", f"{choice.unet:g}"))
    return f"<{kind}:{_name(choice.file)}:{':'.join(strengths)}>"


def _name(file: Path) -> str:
    return file.stem if file.suffix in (".safetensors", ".pt", ".bin", ".ckpt") else file.name


def with_hypernetwork(info: Infotext) -> Infotext:
    """`info` with the hypernetwork of its settings as a tag behind the prompt, as the web UI reads
    it."""
    name = info.settings.get(HYPERNETWORK, "")
    strength = info.settings.get(STRENGTH, "1.0")
    if not name or any(sign in name + strength for sign in "<>"):
        return info
    return replace(info, prompt=f"{info.prompt} <hypernet:{name}:{strength}>".lstrip())


def hashes_of(settings: Mapping[str, str]) -> Hashes:
    """The hashes in the web UI's settings."""
    found: dict[str, dict[str, str]] = {}
    for kind, setting in SETTINGS.items():
        pairs = (one.rpartition(":") for one in settings.get(setting, "").split(","))
        own = {name.strip(): short.strip() for name, sign, short in pairs if sign}
        found |= {kind: own} if own else {}
    if len(settings.get(HASH, "")) == HASH_DIGITS and HYPERNETWORK in settings:
        found["hypernetwork"] = {settings[HYPERNETWORK]: settings[HASH]}
    return found


def checked_hashes(found: Any) -> Hashes:
    """`found` in a picture's text, without what is no hash of a name."""
    kinds: Sequence[str] = (*SETTINGS, "hypernetwork", "control")
    if not isinstance(found, dict):
        return {}
    return {
        kind: {name: short for name, short in found[kind].items() if isinstance(short, str)}
        for kind in kinds if isinstance(found.get(kind), dict)
    }  # fmt: skip
