"""The task `sweep`: scores over guidance, steps and samplers, as a table and a plot."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.config.checks import ConfigError, require, settings
from ldm_jax.config.command_line import HELP_WORDS, overridden, parse
from ldm_jax.config.sampling import GuidanceScale, Steps
from ldm_jax.config.setting_words import path_of
from ldm_jax.core import distributed
from ldm_jax.core.cluster import Place, find_share
from ldm_jax.core.files import check_writable, write_atomically
from ldm_jax.evaluation import fid_task
from ldm_jax.evaluation.table_task import cell, markdown

ABOUT = """Scores a model's drawings for every combination of --guidance_scale, --steps and
--sampler, each one or more values:

    --guidance_scale 1 2 4 8 --steps 10 50 --sampler ddim dpmpp_2m

All other options are those of the task `fid`. OUT gets a folder of each combination, sweep.md, a
table, and sweep.png: each score against guidance, and FID against CLIP score where both are
measured. The same command goes on where it was interrupted."""


@settings
class Axes:
    """What is varied; an empty axis has the model's usual value."""

    guidance_scale: tuple[GuidanceScale, ...] = ()
    steps: tuple[Steps, ...] = ()
    sampler: tuple[str, ...] = ()


AXES = ("guidance_scale", "steps", "sampler")


@dataclass(frozen=True)
class Point:
    """One combination and its report."""

    settings: dict[str, Any]
    report: dict[str, Any] = field(repr=False)


def main(program: str, words: Sequence[str]) -> None:
    """Scores what a command line says."""
    own, rest = split(words)
    axes = overridden(Axes(), own, program)
    arguments = parse(
        fid_task.Arguments(), rest, prog=program, description=ABOUT, model="model", required=False
    )
    run(arguments, axes, rest)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of the axes, with their values, and all others."""
    own: list[str] = []
    rest: list[str] = []
    if not HELP_WORDS.isdisjoint(words):
        return own, [*words]
    target = rest
    for word in words:
        if word.startswith("--"):
            target = own if path_of(word.partition("=")[0]) in AXES else rest
        target.append(word)
    return own, rest


def run(
    arguments: fid_task.Arguments, axes: Axes, command: Sequence[str]
) -> list[Point]:  # fmt: skip
    """Scores every combination and writes table and plot. Raises ValueError, OSError."""
    if arguments.choice.model is None:
        raise ConfigError("--model=MODEL is missing: a sweep draws")
    require(not arguments.reconstructions, "--reconstructions", True,
            "left out: a sweep draws")  # fmt: skip
    fid_task.check_sets(arguments)
    combinations = list(_combinations(arguments.sampling, axes))
    from ldm_jax.images.grid import save_png

    out = arguments.out
    check_writable(out, f"--out={out}")
    place = find_share(**vars(arguments.share))
    with distributed.together("ldm_jax.evaluation sweep", place):
        points = _points(arguments, combinations, command, place)
    if len(points) < len(combinations):
        return points
    text = table(points)
    write_atomically(out / "sweep.md", text.encode())
    save_png(out / "sweep.png", picture(points))
    print(text + f"table and plot: {out / 'sweep.md'}, {out / 'sweep.png'}")
    return points


def _points(
    arguments: fid_task.Arguments,
    combinations: Sequence[tuple[dict[str, Any], cfg.Sampling]],
    command: Sequence[str],
    place: Place,
) -> list[Point]:
    """The combinations whose features are all there."""
    out = arguments.out
    scorer, left = fid_task.open_scorer(arguments, out / "features" / "reference", place)
    pipeline = fid_task.open_pipeline(arguments)
    points: list[Point] = []
    for number, (varied, sampling) in enumerate(combinations):
        print(f"{number + 1} of {len(combinations)}: {_named(varied)}", flush=True)
        folder = out / _named(varied, "_").replace(" ", "_")
        one = replace(arguments, sampling=sampling, out=folder)
        samples = fid_task.open_samples(one, pipeline)
        report = fid_task.score(one, scorer, samples, folder, left, place)
        if report is None:
            continue
        # As the task fid is called for this point alone, which --verify does.
        report["command"] = [*command, *(f"--{n}={value}" for n, value in varied.items())]
        write_atomically(folder / "scores.json", (json.dumps(report, indent=2) + "\n").encode())
        points.append(Point(varied, report))
    return points


def table(points: Sequence[Point]) -> str:
    """The scores of all points in Markdown."""
    scores = list(points[0].report["scores"])
    rows = [
        [str(value) for value in point.settings.values()]
        + [cell(point.report["scores"][name]) for name in scores]
        for point in points
    ]
    return markdown([*points[0].settings, *scores], rows) + "\n"


def picture(points: Sequence[Point]) -> Any:
    """Each score against guidance, or where it is not varied against steps, a curve for each
    combination of the others."""
    from ldm_jax.images.plot import BLUE, GREEN, ORANGE, PURPLE, Curve, Panel, plot

    axis = next(
        (a for a in AXES[:2] if len({p.settings.get(a) for p in points}) > 1), "guidance_scale"
    )
    groups: dict[str, list[Point]] = {}
    for point in points:
        others = {name: value for name, value in point.settings.items() if name != axis}
        groups.setdefault(_named(others) or "all", []).append(point)
    colours = (BLUE, ORANGE, GREEN, PURPLE)
    pairs = [(axis, name) for name in points[0].report["scores"]]
    if {"fid", "clip_score"} <= points[0].report["scores"].keys():
        pairs.append(("clip_score", "fid"))
    panels = []
    for number, (x, y) in enumerate(pairs):
        curves = [
            Curve(
                name, [_value(p, x) for p in own], [_value(p, y) for p in own],
                colours[i % len(colours)], dots=True,
            )
            for i, (name, own) in enumerate(groups.items())
        ]  # fmt: skip
        top = number // 2 * HEIGHT
        title = f"{y} against {x}".replace("_", " ")
        panels.append(Panel(title, curves, number % 2 * WIDTH, top, WIDTH, HEIGHT, log=False))
    rows = -(-len(panels) // 2)
    return plot(panels, WIDTH * min(2, len(panels)), HEIGHT * rows)


WIDTH, HEIGHT = 480, 320


def _combinations(sampling: cfg.Sampling, axes: Axes) -> Iterator[tuple[dict, cfg.Sampling]]:
    varied = {name: dict.fromkeys(getattr(axes, name)) for name in AXES if getattr(axes, name)}
    if not varied:
        raise ConfigError("nothing varies: give --guidance_scale, --steps or --sampler values")
    for values in product(*varied.values()):
        settings = dict(zip(varied, values, strict=True))
        yield settings, replace(sampling, **settings)


def _value(point: Point, name: str) -> float:
    scores = point.report["scores"]
    return scores[name]["value"] if name in scores else point.settings.get(name, 0)


def _named(settings: dict[str, Any], between: str = ", ") -> str:
    return between.join(f"{name.replace('_scale', '')} {value}" for name, value in settings.items())
