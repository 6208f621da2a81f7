"""Which ControlNet is used and how strongly, and what it is shown, each in one spelling: MODEL:0.8,
and FILE, canny:FILE or crop:FILE."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ldm_jax.config.checks import ConfigError, check_fields, require
from ldm_jax.config.lora_choice import is_strength, strength_of
from ldm_jax.core.stores import as_path

CANNY = (100.0, 200.0)
"""The usual thresholds of Canny's edges, of gradients of pixels of 0 to 255."""
HintFit = Literal["stretch", "crop", "fill"]
"""What becomes of pictures with other proportions than what is drawn."""
_HINT = re.compile(
    r"(?:(crop|fill):)?(canny:(?:(\d+(?:\.\d+)?):(\d+(?:\.\d+)?):)?)?(.*)", re.DOTALL
)


@dataclass(frozen=True)
class ControlChoice:
    """A ControlNet's file or folder, and what all that it adds is multiplied by."""

    file: Path
    scale: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "ControlChoice":
        """That which `text` spells; without a scale it is 1.

        Raises:
            ConfigError: no file, or a scale that cannot be.
        """
        file, sign, last = text.rpartition(":")
        if not sign or not is_strength(last):
            file, last = text, "1"
        if not file:
            raise ConfigError(f"control is {text!r}, which names no file; write MODEL or MODEL:0.8")
        return cls(as_path(file), strength_of(last, f"control is {text!r}"))

    def __str__(self) -> str:
        """In the spelling that `parse` reads."""
        return f"{self.file}:{self.scale!r}"


@dataclass(frozen=True)
class HintChoice:
    """A picture, as it is or as its edges."""

    file: Path
    canny: tuple[float, float] | None = None
    """The lower and the higher threshold of Canny's edges (Canny 1986)."""
    fit: HintFit = "stretch"

    @classmethod
    def parse(cls, text: str) -> "HintChoice":
        """That which `text` spells: FILE, canny:FILE or canny:LOW:HIGH:FILE, before each of which
        crop: or fill: may stand.

        Raises:
            ConfigError: no file, or thresholds in the wrong order.
        """
        found = _HINT.fullmatch(text)
        assert found is not None  # it matches all
        fit, edges, low, high, file = found.groups()
        if not file:
            raise ConfigError(f"hint is {text!r}, which names no file; write FILE or canny:FILE")
        fit = fit or "stretch"
        if edges is None:
            return cls(as_path(file), None, fit)
        thresholds = CANNY if low is None else (float(low), float(high))
        if thresholds[0] > thresholds[1]:
            raise ConfigError(
                f"hint is {text!r}, whose first threshold is above the second; write "
                "canny:LOW:HIGH:FILE, such as canny:100:200:photo.png"
            )
        return cls(as_path(file), thresholds, fit)

    def __str__(self) -> str:
        """In the spelling that `parse` reads."""
        before = "" if self.fit == "stretch" else f"{self.fit}:"
        if self.canny is None:
            return f"{before}{self.file}"
        return f"{before}canny:{self.canny[0]:g}:{self.canny[1]:g}:{self.file}"


@dataclass(frozen=True)
class ControlHints:
    """What ControlNets are shown, and when they act."""

    hint: tuple[str, ...] = ()
    """A picture for each ControlNet, such as edges or a depth map: FILE as it is, canny:FILE, or
    canny:LOW:HIGH:FILE with thresholds, for the edges of a picture. Of other proportions than what
    is drawn it is stretched; with crop: before all this it is cropped, with fill: filled up."""
    control_start: tuple[float, ...] = ()
    """Share of the steps after which ControlNets begin to act, 0 to 1; one for all, or one for
    each. By default 0."""
    control_end: tuple[float, ...] = ()
    """Share of the steps after which they no longer act; by default 1."""
    guess_mode: bool = False
    """Let ControlNets find out what a hint shows without a prompt: they act on the conditional
    prediction alone, and less in the finer levels, from a tenth on."""

    def __post_init__(self) -> None:
        check_fields(self, "")
        object.__setattr__(self, "hint", tuple(str(HintChoice.parse(one)) for one in self.hint))
        for name in ("control_start", "control_end"):
            values = getattr(self, name)
            require(all(0 <= one <= 1 for one in values), name, values, "shares from 0 to 1")
            if values and not self.hint:
                raise ConfigError(f"{name} needs hint, the name of a file")
            require(len(values) in (0, 1, len(self.hint)), name, values,
                    f"one number, or {len(self.hint)}, one for each hint")  # fmt: skip
        if self.guess_mode and not self.hint:
            raise ConfigError("guess_mode needs hint, the name of a file")
        for start, end in self.windows:
            if start >= end:
                raise ConfigError(
                    f"control_start is {start:g} and control_end {end:g}; the end must be later"
                )

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Start and end for each hint."""
        starts, ends = self.control_start or (0.0,), self.control_end or (1.0,)
        count = len(self.hint)
        return [*zip((starts * count)[:count], (ends * count)[:count], strict=True)]


def check_hints(control: tuple[str, ...], hints: ControlHints) -> None:
    """Raises ConfigError unless there is one hint for each ControlNet."""
    if hints.hint and not control:
        raise ConfigError("hint needs control, the name of a ControlNet")
    if control and not hints.hint:
        raise ConfigError(
            f"hint is missing: control names {len(control)} ControlNet"
            f"{'s' if len(control) > 1 else ''}, each of which is shown a picture"
        )
    if len(control) != len(hints.hint):
        raise ConfigError(
            f"hint names {len(hints.hint)} pictures, but control {len(control)} ControlNets; name "
            "one for each, in the same order"
        )
