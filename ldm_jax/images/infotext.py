"""The text `parameters` that AUTOMATIC1111's web UI writes into PNG files: prompt, negative prompt
and one line of settings; and the names that it has for samplers."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ldm_jax.config.sampling import MAX_SIDE
from ldm_jax.core.reading import FileFormatError, open_file, shown
from ldm_jax.diffusion.spacing import has_ddim_uniform
from ldm_jax.images.picture_files import open_picture

CHUNK = "parameters"
"""The key of the text chunk."""

NEGATIVE = "Negative prompt:"
TRAILING = 32
"""So many lines may follow the settings."""
LEAST_SETTINGS = 3
"""The web UI takes the last line for settings if it has so many."""

_KEY = re.compile(r"\w[\w \-/]*[\w\-/]")
_SETTING = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')

SAMPLERS = {
    "Euler": "euler",
    "Euler a": "euler_a",
    "Heun": "heun",
    "LMS": "lms",
    "DPM2": "dpm2",
    "DPM2 a": "dpm2_a",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "DPM++ SDE": "dpmpp_sde",
    "DPM++ 2S a": "dpmpp_2s_a",
    "UniPC": "unipc",
    "LCM": "lcm",
    "DDIM": "ddim",
    "PLMS": "plms",
    "DDPM": "ddpm",
}
"""The web UI's name of a sampler → ours."""

SCHEDULES = {
    "Karras": "karras",
    "Exponential": "exponential",
    "SGM Uniform": "trailing",
    "Uniform": "linspace",
    "Align Your Steps": "ays_sd15",
}
"""The web UI's name of a schedule type → our spacing."""

AUTOMATIC = {
    "dpm2": "karras", "dpm2_a": "karras", "dpmpp_2m": "karras", "dpmpp_2s_a": "karras",
    "dpmpp_sde": "karras", "dpmpp_2m_sde": "exponential", "dpmpp_3m_sde": "exponential",
}  # fmt: skip
"""The spacing that the schedule type "Automatic" means, where it is not "Uniform"."""

DISCRETE = ("ddim", "plms", "ddpm")
"""Samplers over timesteps: they have no schedule type, and space their steps as CompVis did."""
EVEN = ("Uniform", "SGM Uniform")
"""Schedule types that such a sampler's text does not have; any other is written out."""
TIMESTEPS = 1000
"""Of the models that the web UI draws with."""


class InfotextError(ValueError):
    """Parameters that the text could not hold, or names that are not here."""


@dataclass(frozen=True)
class Infotext:
    """What a picture was made from; the values of settings are text, as in the file."""

    prompt: str = ""
    negative_prompt: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)
    """In the order of the file: `Steps`, `Sampler`, `CFG scale`, `Seed`, `Size`, …"""
    problems: tuple[str, ...] = ()
    """What else the text says, and what was made of it."""


# ----------------------------------------------------------------------------------------- text


def format_parameters(info: Infotext) -> str:
    """The text of `info`; `parse_parameters` returns exactly `info` from it, but that lines end in
    \\n.

    Values with commas, colons or line breaks are written as JSON strings.

    Raises:
        InfotextError: what would be read as something else: a prompt with a line that begins with
            `Negative prompt:`, a setting's name with other signs than letters, digits, blanks, `-`
            and `/`, or settings too few to be recognised (the first must be `Steps`).
    """
    prompt, negative = _lines(info.prompt), _lines(info.negative_prompt)
    for name, text in (("prompt", prompt), ("negative prompt", negative)):
        for line in text.split("\n"):
            if line.strip().startswith(NEGATIVE):
                raise InfotextError(
                    f"the {name} has a line that begins with {NEGATIVE!r}: {line!r}; it would be "
                    "read as the negative prompt. Begin the line with another word"
                )
    for key in info.settings:
        if not _KEY.fullmatch(key):
            raise InfotextError(
                f"the setting {key!r} has no possible name; use two or more letters, digits, "
                "blanks, '-' or '/', without blanks around"
            )
    if len(info.settings) < LEAST_SETTINGS or next(iter(info.settings)) != "Steps":
        raise InfotextError(
            f"the settings are {', '.join(info.settings) or 'none'}; they are recognised only if "
            f"they are at least {LEAST_SETTINGS} and begin with Steps"
        )
    lines = [prompt] if prompt else []
    if negative:
        lines.append(f"{NEGATIVE} {negative}")
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in info.settings.items()))
    return "\n".join(lines)


def parse_parameters(text: str) -> Infotext:
    """The prompt, negative prompt and settings of a `parameters` text.

    The last line that holds at least three settings, `Steps` among them, is that of the settings;
    what follows it is left out, with a note. Without one all lines are prompt. Nothing is
    stripped from the prompts but the blank after `Negative prompt:`. A comma in a value that is not
    quoted belongs to the value, unless what follows reads as a setting. Of a setting with two
    values the last counts, as in the web UI, with a note.
    """
    lines = _lines(text).rstrip().split("\n")
    settings: dict[str, str] = {}
    problems: list[str] = []
    for place in reversed(range(max(len(lines) - TRAILING, 0), len(lines))):
        found, twice = _parse_settings(lines[place])
        if len(found) >= LEAST_SETTINGS and "Steps" in found:
            if lines[place + 1 :]:
                problems.append(f"lines after its settings: {shown(lines[place + 1])}")
            settings, lines = found, lines[:place]
            problems += twice
            break
    else:
        lines = _lines(text).split("\n")
    start = next((i for i, s in enumerate(lines) if s.strip().startswith(NEGATIVE)), len(lines))
    negative = "\n".join(lines[start:]).lstrip().removeprefix(NEGATIVE).removeprefix(" ")
    return Infotext("\n".join(lines[:start]), negative, settings, tuple(problems))


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _parse_settings(line: str) -> tuple[dict[str, str], list[str]]:
    """The settings in a line, and notes of those that have two values."""
    settings: dict[str, str] = {}
    twice: list[str] = []
    key, end = None, 0
    while end < len(line):
        match = _SETTING.match(line, end)
        if match:
            key, value = match[1].strip(), _unquote(match[2].strip())
            if settings.get(key, value) != value:
                twice.append(f"{key} is there twice, as {shown(settings[key])} and, which counts, "
                             f"as {shown(value)}")  # fmt: skip
            settings[key] = value
            end = match.end()
        elif key is None:
            return {}, []
        else:
            rest = line[end:].partition(",")[0]
            settings[key] += f",{rest.rstrip()}"
            end += len(rest) + 1
    return settings, twice


def _quote(value: str) -> str:
    plain = value and value == value.strip() and not any(sign in value for sign in ',:\n\r"')
    return value if plain else json.dumps(value, ensure_ascii=False)


def _unquote(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return json.loads(value)
        except ValueError:
            pass
    return value


# ------------------------------------------------------------------------------------- samplers


def sampler_settings(sampler: str, spacing: str | None) -> dict[str, str]:
    """The settings `Sampler` and, where the web UI has one, `Schedule type` of ours.

    Raises:
        InfotextError: a sampler without a name there.
    """
    names = {ours: name for name, ours in SAMPLERS.items()}
    if sampler not in names:
        raise InfotextError(f"the web UI has no name for {sampler!r}, only for {_or(names)}")
    settings = {"Sampler": names[sampler]}
    schedule = next((name for name, ours in SCHEDULES.items() if ours == spacing), None)
    if schedule and not (sampler in DISCRETE and schedule in EVEN):
        settings["Schedule type"] = schedule
    return settings


def read_sampler(settings: Mapping[str, str]) -> tuple[str, str]:
    """Our sampler and spacing for the settings `Sampler` and `Schedule type`.

    Both `Sampler: DPM++ 2M Karras`, of older versions, and `Sampler: DPM++ 2M, Schedule type:
    Karras` are understood. Without a schedule type, or with `Automatic`, timesteps are spaced as
    the web UI does for this sampler: for DDIM, PLMS and DDPM CompVis' list, `ddim_uniform`, or
    where that leaves the schedule (which the web UI cuts) `leading`; for the others `linspace`,
    but DPM++ 2M, which is `karras` when `Automatic` is written out.

    Raises:
        InfotextError: a sampler or schedule that is not here, or none.
    """
    name, schedule = settings.get("Sampler", ""), settings.get("Schedule type", "")
    if name not in SAMPLERS and name.endswith(" Karras"):
        if schedule not in ("", "Automatic", "Karras"):
            raise InfotextError(f"Sampler {name!r} contradicts Schedule type {schedule!r}")
        name, schedule = name.removesuffix(" Karras"), "Karras"
    if name not in SAMPLERS:
        raise InfotextError(
            f"the parameters' Sampler is {name!r}; known are {_or(SAMPLERS)}. Name another one"
        )
    sampler = SAMPLERS[name]
    if schedule in ("", "Automatic"):
        if sampler in DISCRETE:
            steps = settings.get("Steps", "")
            known = steps.isdecimal() and len(steps) < 10
            leaves = known and not has_ddim_uniform(TIMESTEPS, int(steps))
            return sampler, "leading" if leaves else "ddim_uniform"
        return sampler, AUTOMATIC.get(sampler, "linspace") if schedule else "linspace"
    if schedule not in SCHEDULES:
        raise InfotextError(
            f"the parameters' Schedule type is {schedule!r}; known are Automatic, "
            f"{_or(SCHEDULES)}. Name another one"
        )
    return sampler, SCHEDULES[schedule]


def _or(names: Mapping[str, str]) -> str:
    *some, last = names
    return f"{', '.join(some)} or {last}"


# ---------------------------------------------------------------------------------------- files


def read_png(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG file, key → text.

    Pillow's limits on text hold: 1 MB for a chunk once inflated, 64 MB for all.

    Raises:
        FileFormatError: no regular file, not a PNG, a damaged or incomplete one, or text beyond
            the limits.
    """
    with open_picture(path, ("PNG",)) as image:
        text = {key: str(value) for key, value in image.text.items()}
    _check_complete(path)
    return text


def _check_complete(path: str | Path) -> None:
    """Raises FileFormatError if the file stops before its end chunk; Pillow accepts that."""
    with open_file(path) as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"IEND":
                return
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
    raise FileFormatError(path, "is cut off before its end")


# ----------------------------------------------------------------------------------- as settings


def as_settings(info: Infotext) -> tuple[dict[str, Any], list[str]]:
    """What `info` says in the names of `Request`, and what of it cannot be used."""
    found: dict[str, Any] = {"prompt": [info.prompt]}
    problems = list(info.problems)
    if info.negative_prompt:
        found["negative_prompt"] = info.negative_prompt
    if info.settings:
        try:
            found["sampler"], found["spacing"] = read_sampler(info.settings)
        except InfotextError as error:
            problems.append(str(error))
    for key, (names, read) in _READ.items():
        if key not in info.settings:
            continue
        try:
            found |= dict(zip(names, read(info.settings[key]), strict=True))
        except ValueError:
            problems.append(f"{key} is {shown(info.settings[key])}, which is no such number")
    problems += [
        f"{key} is {shown(value)}, which is not used here" for key, value in info.settings.items()
        if key not in (*_READ, *_READ_ELSEWHERE)
    ]  # fmt: skip
    if found.get("guidance_scale") == 1 and "negative_prompt" in found:
        del found["negative_prompt"]
        problems.append("its negative prompt has no effect at CFG scale 1")
    return found, problems


def _one(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any]]:
    return lambda text: (kind(text),)


def _sides(text: str) -> tuple[int, int]:
    width, height = (int(side) for side in text.split("x"))
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(text)
    return width, height


_READ: dict[str, tuple[tuple[str, ...], Callable[[str], tuple[Any, ...]]]] = {
    "Steps": (("steps",), _one(int)),
    "CFG scale": (("guidance_scale",), _one(float)),
    "Image CFG scale": (("image_guidance_scale",), _one(float)),
    "Seed": (("seed",), _one(int)),
    "Size": (("width", "height"), _sides),
    "Denoising strength": (("strength",), _one(float)),
    "Clip skip": (("clip_skip",), _one(int)),
    "Eta DDIM": (("eta",), _one(float)),
}
"""The web UI's name of a setting → ours, and how its text is read."""
_READ_ELSEWHERE = (
    "Sampler", "Schedule type", "Model", "Model hash", "Version", "Lora hashes", "TI hashes",
    "Hypernet", "Hypernet hash", "Hypernet strength",
)  # fmt: skip
"""What is read by others, or changes no picture."""
