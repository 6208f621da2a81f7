"""Adapters and hypernetworks that prompts name, as the web UI has it: `<lora:NAME:0.8>`,
`<hypernet:NAME:0.8>`."""

from dataclasses import dataclass
from typing import Literal

from ldm_jax.config.checks import ConfigError
from ldm_jax.config.lora_choice import TAG, strength_of


@dataclass(frozen=True)
class Tag:
    """One adapter, or hypernetwork, that a prompt names, and how strongly."""

    name: str
    text_encoder: float = 1.0
    unet: float = 1.0
    """The strength of a hypernetwork, too, which has but one."""
    kind: Literal["lora", "hypernet"] = "lora"


def cut_tags(prompt: str) -> tuple[str, tuple[Tag, ...]]:
    """The prompt without its tags, spaces around them as they are, and what these say.

    `<lora:NAME>` has strength 1, `<lora:NAME:0.8>` 0.8 in text encoder and U-Net,
    `<lora:NAME:0.5:0.8>` 0.5 in the text encoder and 0.8 in the U-Net; `te=0.5` and `unet=0.8` say
    either by its name, and without `unet` the U-Net has that of the text encoder. An adapter that
    is named twice is applied twice. `<hypernet:NAME>` and `<hypernet:NAME:0.8>` name hypernetworks,
    which are applied one after the other.

    Raises:
        ConfigError: a tag without a name, with a strength that is none, or with more than these.
    """
    tags = tuple(
        _hypernetwork(match["inside"], match[0]) if match["kind"].lower() == "hypernet"
        else _parsed(match["inside"], match[0]) for match in TAG.finditer(prompt)
    )  # fmt: skip
    return TAG.sub("", prompt), tags


def _parsed(inside: str, whole: str) -> Tag:
    name, *words = inside.split(":")
    if not name.strip():
        raise ConfigError(f"{whole} names no adapter; write <lora:NAME:0.8>")
    named: dict[str, float] = {}
    places: list[float] = []
    for word in words:
        key, sign, value = word.partition("=")
        if not sign:
            places.append(strength_of(word, whole))
        elif key.strip() in ("te", "unet") and key.strip() not in named:
            named[key.strip()] = strength_of(value, whole)
        else:
            raise ConfigError(
                f"{whole}: {key.strip()!r} is not read here; te=0.5 and unet=0.8 are, once each"
            )
    if len(places) > 2:
        raise ConfigError(f"{whole} has {len(places)} strengths; write <lora:NAME:TE:UNET>")
    text = named.get("te", places[0] if places else 1.0)
    unet = named.get("unet", places[1] if len(places) == 2 else text)
    return Tag(name.strip(), text, unet)


def _hypernetwork(inside: str, whole: str) -> Tag:
    name, *words = inside.split(":")
    if not name.strip():
        raise ConfigError(f"{whole} names no hypernetwork; write <hypernet:NAME:0.8>")
    if len(words) > 1:
        raise ConfigError(
            f"{whole} has {len(words)} strengths; write <hypernet:NAME:0.8>, with one"
        )
    strength = strength_of(words[0], whole) if words else 1.0
    return Tag(name.strip(), strength, strength, "hypernet")
