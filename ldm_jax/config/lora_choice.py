"""Which adapter is used and how strongly, in one spelling: FILE:0.8, or FILE:TE:UNET."""

import math
import re
from dataclasses import dataclass
from pathlib import Path

from ldm_jax.config.checks import ConfigError
from ldm_jax.core.stores import as_path

TAG = re.compile(r"<(?P<kind>lora|lyco|hypernet):(?P<inside>[^<>]*)>", re.IGNORECASE)
"""An adapter or a hypernetwork that a prompt names."""
LARGEST = 100.0
"""Strengths beyond this, of either sign, are mistakes."""
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)", re.IGNORECASE)


@dataclass(frozen=True)
class LoraChoice:
    """An adapter's file and its strengths."""

    file: Path
    text_encoder: float = 1.0
    unet: float = 1.0

    @classmethod
    def parse(cls, text: str, setting: str = "lora") -> "LoraChoice":
        """That which `text`, the value of a setting, spells; without a strength it is 1, and one
        number is for both.

        Raises:
            ConfigError: no file, or strengths that cannot be.
        """
        parts, strengths = text.split(":"), []
        while len(parts) > 1 and len(strengths) < 2 and is_strength(parts[-1]):
            strengths.insert(0, parts.pop())
        file = ":".join(parts)
        if not file:
            raise ConfigError(
                f"{setting} is {text!r}, which names no file; write FILE:0.8 or FILE:TE:UNET"
            )
        numbers = [strength_of(one, f"{setting} is {text!r}") for one in strengths] or [1.0]
        return cls(as_path(file), numbers[0], numbers[-1])

    def __str__(self) -> str:
        """In the spelling that `parse` reads."""
        if self.text_encoder == self.unet:
            return f"{self.file}:{self.unet!r}"
        return f"{self.file}:{self.text_encoder!r}:{self.unet!r}"


def strength_of(text: str, where: str) -> float:
    """The strength that `text` is.

    Raises:
        ConfigError: it is none; names `where`.
    """
    try:
        value = float(text)
    except ValueError:
        raise ConfigError(
            f"{where}: {text!r} is no strength; write a number, such as 0.8"
        ) from None
    if not math.isfinite(value) or abs(value) > LARGEST:
        raise ConfigError(
            f"{where}: the strength {text} is not within ±{LARGEST:g}; 1 is as it was trained"
        )
    return value


def is_strength(text: str) -> bool:
    """Whether it is written as a number."""
    return _NUMBER.fullmatch(text.strip()) is not None
