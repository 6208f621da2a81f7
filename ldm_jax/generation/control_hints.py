"""What ControlNets are shown, and when and how strongly they act, as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, UInt8

from ldm_jax import config as cfg
from ldm_jax.config.control_choice import ControlChoice, HintChoice, check_hints
from ldm_jax.core.typing import Level, Process
from ldm_jax.data.edges import canny_edges
from ldm_jax.data.resampling import resize
from ldm_jax.images import masks
from ldm_jax.images.fitting import cropped, filled, inner_sides

GUESS = (-1.0, 0.0)
"""Guess mode multiplies residuals by ten to the power of these, from the first to the middle's."""
WITHIN = 1e-3
"""Share of a step by which times may differ from those of the levels."""


@dataclass(frozen=True, eq=False)
class Hints:
    """For one drawing."""

    pictures: tuple[UInt8[np.ndarray, "h w 3"], ...]
    """For each ControlNet, of the size of what is drawn."""
    windows: tuple[tuple[float, float], ...]
    """Shares of the steps from which, and up to which, each acts."""
    guess_mode: bool = False


def read_hints(
    choice: cfg.ModelChoice, hints: cfg.ControlHints
) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The pictures of a request, as they are in their files.

    Raises:
        ConfigError, ValueError: not one for each ControlNet, or one that cannot be read.
    """
    check_hints(choice.control, hints)
    return [masks.load_image(HintChoice.parse(one).file) for one in hints.hint]


def prepare(
    pictures: Sequence[UInt8[np.ndarray, "h w 3"]],
    hints: cfg.ControlHints,
    sides: tuple[int, int],
    full: tuple[int, int],
) -> Hints:
    """Hints for pictures of a height and width of `sides`, continued by their edge to `full`.

    Edges are found at the size of drawing.
    """
    found = []
    for picture, one in zip(pictures, hints.hint, strict=True):
        picture = shown(picture, HintChoice.parse(one), sides)
        more = [(0, new - old) for new, old in zip(full, sides, strict=True)]
        found.append(np.pad(picture, [*more, (0, 0)], mode="edge"))
    return Hints(tuple(found), tuple(hints.windows), hints.guess_mode)


def shown(
    picture: UInt8[np.ndarray, "h w 3"], choice: HintChoice, sides: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """The picture, or its edges, as it was chosen; filled up with the most usual colour of its
    border, the median."""
    if choice.fit == "crop":
        picture = cropped(picture, sides)
    own = inner_sides(picture, sides) if choice.fit == "fill" else sides
    picture = resized(picture, own)
    if choice.canny is not None:
        picture = canny_edges(picture, *choice.canny)
    if own == sides:
        return picture
    border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
    return filled(picture, sides, np.median(border, axis=0).astype(np.uint8))


def resized(
    picture: UInt8[np.ndarray, "h w 3"], sides: tuple[int, int]
) -> UInt8[np.ndarray, "height width 3"]:
    """Resized as the original code does: by Lanczos' kernel where it grows, else by area."""
    if picture.shape[:2] == sides:
        return picture
    grows = min(sides) > min(picture.shape[:2])
    found = resize(picture.astype(np.float32), sides, "lanczos" if grows else "area")
    return np.clip(np.round(found), 0, 255).astype(np.uint8)


class ControlNumbers(NamedTuple):
    """Numbers for each ControlNet, one after the other."""

    cond: tuple[Float32[np.ndarray, " n"], ...]
    """What its residuals are multiplied by in the conditional prediction."""
    uncond: tuple[Float32[np.ndarray, " n"], ...]
    """And in the unconditional one."""
    times: tuple[Float32[np.ndarray, "2"], ...]
    """It acts from the first of these times, as a network is told them, down to the second."""


def control_numbers(
    branches: Sequence[cfg.ControlBranch],
    choices: Sequence[ControlChoice],
    hints: Hints,
    levels: Level,
    process: Process,
) -> ControlNumbers:
    """As of diffusers 0.42: in guess mode, and for models of the mean, nothing is added to the
    unconditional prediction; guess mode weighs the residuals of all but these.

    Raises:
        ConfigError: a ControlNet acts in no step.
    """
    told = np.asarray(process.network_time(np.asarray(levels.timestep)), np.float64)
    cond, uncond, times = [], [], []
    for branch, choice, window in zip(branches, choices, hints.windows, strict=True):
        strengths = np.full(branch.residuals, choice.scale, np.float32)
        if hints.guess_mode and not branch.global_pool:
            strengths *= np.logspace(*GUESS, branch.residuals, dtype=np.float32)
        one_sided = hints.guess_mode or branch.global_pool
        cond.append(strengths)
        uncond.append(np.zeros_like(strengths) if one_sided else strengths)
        times.append(_times(told, window))
    return ControlNumbers(tuple(cond), tuple(uncond), tuple(times))


def _times(told: Float[np.ndarray, " n"], window: tuple[float, float]) -> np.ndarray:
    """Between which times a ControlNet acts: step i of n does not where i / n lies before the
    window's start or (i + 1) / n beyond its end."""
    start, end = window
    count = len(told) - 1
    on = [i for i in range(count) if i / count >= start and (i + 1) / count <= end]
    if not on:
        raise cfg.ConfigError(
            f"control_start is {start:g} and control_end {end:g}, between which none of {count} "
            "steps lies whole; widen them, or take more steps"
        )
    first, last = on[0], on[-1] + 1
    begin = np.inf if first == 0 else told[first] + WITHIN * (told[first - 1] - told[first])
    stop = -np.inf if last == count else told[last] + WITHIN * (told[last - 1] - told[last])
    return np.array([begin, stop], np.float32)
