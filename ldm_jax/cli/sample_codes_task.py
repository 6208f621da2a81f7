"""What `python -m ldm_jax.cli.sample_codes` does."""

import json
from collections.abc import Iterator
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from ldm_jax import config as cfg
from ldm_jax.config.checks import (
    Count,
    CountOrNone,
    Entries,
    Seed,
    Side,
    Width,
    Within,
    require,
    settings,
)
from ldm_jax.config.command_line import check_given, check_model, overridden
from ldm_jax.core.files import check_writable, writing
from ldm_jax.core.reading import printable

HELP = """Draws pictures code by code, from a transformer over the codes of a first stage (VQGAN's
second stage). Each PNG says in its text how it was drawn."""
CHUNK = "ldm_jax_codes"
"""The PNG's text chunk with what draws the picture again, as JSON."""
GRID = "grid.png"


@settings
class Arguments:
    model: str = ""
    """Work directory of a transformer over codes, or a file of taming-transformers."""
    out: Path | None = None
    """The folder of the pictures, new or empty."""
    num: Count = 8
    """Pictures, of each class where there are some."""
    classes: tuple[CountOrNone, ...] = ()
    """Classes by number, for a model of classes."""
    classifier: Path | None = None
    """Work directory of a classifier: of many pictures only those are kept that it finds likeliest
    to show their class."""
    acceptance: Annotated[float, Within(0.0, 1.0, above=True)] | None = None
    """Share of the pictures that are kept with --classifier; --num are left."""
    class_map: Path | None = None
    """File of the class map, for a model of these; pictures have its size."""
    depth: Path | None = None
    """File of the depth map (grey PNG or .npy), for a model of these; pictures have its size."""
    seed: Seed = 0
    """Seed of all random numbers."""
    first_image: CountOrNone = 0
    """Number of the first picture: --first_image=5 --num=1 draws only the sixth."""
    sampling: cfg.CodeSampling = field(default_factory=cfg.CodeSampling)
    height: Side | None = None
    """Height in pixels, if larger than the training images'."""
    width: Side | None = None
    """Width in pixels, if larger than the training images'."""
    batch_size: Annotated[int, Within(1, 65536)] = 16
    """Pictures drawn at once; it changes none of them."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the networks compute in."""
    weights: Literal["ema", "raw"] | None = None
    """Of a work directory: averages or raw weights; None: the averages, if there are any."""
    original_config: Path | None = None
    """Of a file: the YAML settings it was trained with."""
    heads: Width | None = None
    """Of a file without these: the number of attention heads."""
    num_classes: Entries | None = None
    """Of a file without these: the number of classes it is conditioned on; None: of none."""


def run(arguments: Arguments) -> Path:
    """Draws and writes everything; returns the path of the grid.

    Raises:
        ValueError, OSError: it cannot be.
    """
    _check(arguments)
    # JAX starts only now, so that --help and mistakes answer at once.
    import numpy as np

    from ldm_jax.convert.code_models import load_code_model
    from ldm_jax.core.progress import Progress
    from ldm_jax.generation.code_conditions import read_condition
    from ldm_jax.generation.code_drawing import CodePicture, check_pictures, draw_pictures
    from ldm_jax.generation.code_rejection import Judge, accepted, drawn_of
    from ldm_jax.images.grid import grid, save_png
    from ldm_jax.images.sheet import SIDE

    model = load_code_model(
        arguments.model, weights=arguments.weights, original_config=arguments.original_config,
        heads=arguments.heads, num_classes=arguments.num_classes,
    )  # fmt: skip
    count = drawn_of(arguments.num, arguments.acceptance or 1.0)
    numbers = range(arguments.first_image, arguments.first_image + count)
    pictures = [CodePicture(n, label) for label in arguments.classes or (None,) for n in numbers]
    check_pictures(model.config, pictures)
    condition = read_condition(
        model.config, arguments.class_map, arguments.depth, arguments.height, arguments.width
    )
    judge = None
    if arguments.classifier is not None:
        judge = Judge.read(arguments.classifier, model.config, condition.shown)
    with Progress("sampling", len(pictures), images=1) as bar:
        drawn = _counted(
            draw_pictures(
                model, pictures, arguments.sampling, arguments.seed, condition,
                arguments.batch_size, arguments.dtype,
            ),
            bar,
        )  # fmt: skip
        kept = accepted(drawn, judge.log_prob, arguments.num, count) if judge is not None else drawn
        images, out = [], arguments.out
        with writing(out):
            out.mkdir(parents=True, exist_ok=True)
        for picture, image, *log_prob in kept:
            name = f"{picture.number:04d}.png"
            if picture.label is not None:
                name = f"{picture.label:04d}_{name}"
            chosen = {"of": count, "log_prob": log_prob[0]} if log_prob else None
            save_png(out / name, image, _text(arguments, picture, model.origin, chosen))
            images.append(image)
    labels = [str(one) for one in arguments.classes for _ in range(arguments.num)]
    columns = min(8, arguments.num)
    scale = max(1, SIDE // max(condition.shown))
    save_png(out / GRID, grid(np.stack(images), columns, labels or None, scale))
    return out / GRID


def _check(arguments: Arguments) -> None:
    """Raises ValueError, OSError for what can be known to be wrong before anything is loaded."""
    require(arguments.out is not None, "--out", None, "the folder of the pictures")
    check_model(arguments.model or None, "model")
    together = (arguments.classifier is None) == (arguments.acceptance is None)
    require(together, "--acceptance", arguments.acceptance,
            "given with --classifier, and left out without")  # fmt: skip
    out = arguments.out
    check_writable(out, f"--out={out}")
    if out.is_dir() and any(out.iterdir()):
        raise cfg.ConfigError(f"--out={out} is not empty; choose another")


def _counted(drawn: Iterator[Any], bar: Any) -> Iterator[Any]:
    for one in drawn:
        yield one
        bar.update(1)


def _text(
    arguments: Arguments, picture: Any, origin: dict[str, Any], chosen: dict[str, Any] | None
) -> dict[str, str]:
    """What draws one picture again, as a text chunk: the arguments of a command for it alone, which
    model that was, and how a classifier chose it."""
    classes = () if picture.label is None else (picture.label,)
    alone = replace(
        arguments, num=1, first_image=picture.number, classes=classes, out=None, classifier=None,
        acceptance=None,
    )  # fmt: skip
    said = {name: value for name, value in asdict(alone).items() if value not in (None, ())}
    told: dict[str, Any] = {"arguments": said, "origin": origin}
    if chosen is not None:
        by = {"classifier": arguments.classifier, "acceptance": arguments.acceptance}
        told["chosen"] = by | chosen
    return {CHUNK: json.dumps(told, default=str)}


def main(program: str, words: list[str]) -> None:
    """Draws what a command line says.

    Raises:
        ValueError, OSError: it cannot be.
    """
    check_given(words, ("model", "out", "classifier", "class_map", "depth", "original_config"))
    arguments = overridden(Arguments(), words, program, HELP)
    print(printable(str(run(arguments))))
