"""What `metrics.jsonl` tells as one picture: loss, learning rate, speed."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import UInt8

from ldm_jax.core.names import EvaluatorName
from ldm_jax.images.plot import BLUE, GREEN, ORANGE, PURPLE, Curve, Mark, Panel, number, plot

WIDTH, HEIGHT, BELOW = 1200, 820, 270
"""Pixels of the picture, and the height of the small panels at its bottom."""


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file, without a last line that was cut off."""
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def series(records: Iterable[dict[str, Any]], name: str) -> tuple[list[int], list[int | float]]:
    """Steps at which `name` was measured, and its values; what was not finite is NaN."""
    found = [
        (one["step"], math.nan if one[name] is None else one[name])
        for one in records
        if name in one
    ]
    return [step for step, _ in found], [value for _, value in found]


def draw_curves(records: Sequence[dict[str, Any]]) -> UInt8[np.ndarray, "height width 3"]:
    """Loss and validation loss above, learning rate and images/s below, and under these the scores
    of drawings where there are any."""
    validation = series(records, "validation_loss")
    curves = [
        Curve("training loss", *series(records, "loss"), colour=BLUE, smooth=True),
        Curve("validation loss", *validation, colour=ORANGE, dots=True),
    ]
    measured = [(value, step) for step, value in zip(*validation, strict=True) if value == value]
    marks = []
    if len(measured) > 1:
        value, step = min(measured)
        marks = [Mark(f"least: {number(float(f'{value:.4g}'))} at step {step:,}", step, value)]
    half, top = WIDTH // 2, HEIGHT - BELOW
    rate = Curve("learning rate", *series(records, "learning_rate"), colour=GREEN)
    speed = Curve("images/s", *series(records, "images_per_second"), colour=PURPLE, smooth=True)
    panels = [
        Panel("loss over steps", curves, 0, 6, WIDTH, top - 6, marks),
        Panel("learning rate", [rate], 0, top, half, BELOW, log=False),
        Panel("images per second", [speed], half, top, half, BELOW, log=False),
    ]
    names = sorted({name for one in records for name in one if _is_score(name)})
    for place, name in enumerate(names):
        curve = Curve(name, *series(records, name), colour=ORANGE, dots=True)
        below = HEIGHT + place // 2 * BELOW
        panels.append(Panel(name, [curve], place % 2 * half, below, half, BELOW))
    return plot(panels, WIDTH, HEIGHT + -(-len(names) // 2) * BELOW)


def _is_score(name: str) -> bool:
    """Whether a metric is a score of drawings, such as `torch-fidelity/fid`."""
    return name.partition("/")[0] in get_args(EvaluatorName)
