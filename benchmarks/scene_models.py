"""Draws with the small models of DigitScenes and marks what they draw:
`python -m benchmarks.scene_models --runs=runs --rater=runs/demo/rater.npz --out=scene_models`.

Each row's pictures are kept in OUT, so that a row is drawn once; OUT/report.json has the numbers
and OUT/samples.png eight pictures of each row."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import UInt8

from ldm_jax import config as cfg
from ldm_jax.core.files import write_atomically
from ldm_jax.data.digit_scenes import held_out_prompts, parse_caption
from ldm_jax.evaluation.rater import Rater, accuracy
from ldm_jax.evaluation.scenes import scene_quality
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.grid import grid, save_png

COLUMNS, SCALE = 8, 4
ALONE = "a red zero alone"
"""Names the place of a single digit; the colour and the digit do not matter to what is read."""


@dataclass(frozen=True)
class Row:
    """A work directory, and how it draws."""

    label: str
    model: str
    sampling: cfg.Sampling
    helpers: dict[str, str] = field(default_factory=dict)
    """Further work directories, as `Pipeline` names them."""


FREE = cfg.Sampling(steps=25, guidance_scale=1.0)
GUIDED = cfg.Sampling(steps=25, guidance_scale=2.0)
ROWS = (
    Row("ddpm", "ddpm", cfg.Sampling("ddpm", steps=100, threshold=0.5)),
    Row("iddpm", "iddpm", cfg.Sampling("ddpm_learned", steps=100, threshold=0.5)),
    Row("ve-flow", "ve", cfg.Sampling("heun", steps=18)),
    Row("ve-pc", "ve", cfg.Sampling("reverse_diffusion", steps=100, corrector="langevin")),
    Row("vp-flow", "vp", cfg.Sampling("heun", steps=18)),
    Row("vp-pc", "vp", cfg.Sampling("reverse_diffusion", steps=100, corrector="langevin")),
    Row("class", "class", FREE),
    Row("class-free-3", "class", cfg.Sampling(steps=25, guidance_scale=3.0)),
    *(
        Row(f"class-clf-{scale}", "class",
            cfg.Sampling(steps=25, guidance_scale=1.0, classifier_scale=scale),
            {"classifier": "classifier"})
        for scale in (1, 3)
    ),
    *(
        # What the classifier does alone: the classes are dropped.
        Row(f"null-clf-{scale}", "class",
            cfg.Sampling(steps=25, guidance_scale=0.0, classifier_scale=scale),
            {"classifier": "classifier"})
        for scale in (0, 1, 3, 10)
    ),
    Row("flow", "flow", cfg.Sampling("euler", steps=25, guidance_scale=2.0)),
    Row("zero-snr", "zero_snr", GUIDED),
)  # fmt: skip


def main(runs: Path, rater: Path, out: Path, num: int = 64, only: tuple[str, ...] = ()) -> None:
    """Draws `num` pictures for each row whose work directory is there, or for those named."""
    marks, report, shown, labels = Rater.load(rater), {}, [], []
    out.mkdir(parents=True, exist_ok=True)
    for row in ROWS:
        file = out / f"{row.label}.npz"
        if not file.exists() and (row.label in only or not only) and (runs / row.model).is_dir():
            np.savez_compressed(file, **drawn(row, runs, num))
        if not file.exists():
            continue
        with np.load(file) as found:
            images, wishes, seconds = found["images"], found["wishes"], float(found["seconds"])
        report[row.label] = {"pictures": len(images), "seconds": seconds} | marked(
            marks, images, wishes
        )
        print(row.label, json.dumps(report[row.label]), flush=True)
        shown.append(images[:COLUMNS])
        labels += [row.label, *[""] * (COLUMNS - 1)]
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    save_png(out / "samples.png", grid(np.concatenate(shown), COLUMNS, labels, SCALE))


def drawn(row: Row, runs: Path, num: int) -> dict[str, Any]:
    """A row's pictures, what they were to show, and the seconds that it took, compiling too."""
    helpers = {name: runs / folder for name, folder in row.helpers.items()}
    pipeline = Pipeline(runs / row.model, **helpers)
    wishes: list[Any] = [None] * num
    if "caption" in pipeline.config.inputs:
        wishes = [*held_out_prompts(num)]
    elif "label" in pipeline.config.inputs:
        wishes = [number % 10 for number in range(num)]
    start = time.perf_counter()
    images = pipeline.generate(wishes, sampling=row.sampling)
    seconds = round(time.perf_counter() - start, 1)
    known = np.array([] if wishes[0] is None else wishes)
    return {"images": images, "wishes": known, "seconds": seconds}


def marked(
    rater: Rater, images: UInt8[np.ndarray, "n h w 3"], wishes: np.ndarray
) -> dict[str, float]:
    """What the rater says of pictures that were to show captions, digits or nothing."""
    found = scene_quality(rater, images)
    if wishes.dtype.kind == "U":
        readings, named = rater.read(images, [*wishes]), map(parse_caption, wishes)
        pairs = [
            mark.colour == thing.colour
            for reading, description in zip(readings, named, strict=True)
            for mark, thing in zip(reading.marks, description.things, strict=True)
        ]
        found["colours"] = float(np.mean(pairs))
        return found | {f"caption_{k}": v for k, v in accuracy(rater, images, [*wishes]).items()}
    if wishes.size:
        read = rater.read(images, [ALONE] * len(images))
        right = [r.marks[0].digit == wish for r, wish in zip(read, wishes, strict=True)]
        found["digit_accuracy"] = float(np.mean(right))
    return found


if __name__ == "__main__":
    tyro.cli(main)
