"""Asks how well a model of Open Clip Art's classes draws what it is asked for:
`python -m benchmarks.clipart_classes --model=runs/classes --pictures=clipart --out=report`.

A linear classifier of VGG16's features learns the classes from real pictures. What it says of
held-out ones is how far it can be trusted; what it says of drawings, how many show their class.
OUT/report.json has the numbers by class, OUT/drawings.png drawings of each. `--classes` names those
on the picture; all are measured."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float32, Int, UInt8

from ldm_jax import config as cfg
from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import read_text
from ldm_jax.data.example_order import spread_rows
from ldm_jax.data.loader import examples_at
from ldm_jax.data.sources import open_source
from ldm_jax.evaluation.features.extractors import read_extractor
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.grid import grid, save_png

STEPS = 25
RIDGE = 1e-2
"""Of the features' mean square."""


def main(
    model: Path,
    pictures: Path,
    out: Path,
    real: int = 2000,
    num: int = 32,
    guidance: tuple[float, ...] = (1.0, 2.0, 4.0),
    shown: float = 2.0,
    classes: tuple[str, ...] = (),
) -> None:
    """Fits on `real` training pictures, and asks for `num` drawings of each class and guidance."""
    out.mkdir(parents=True, exist_ok=True)
    run = cfg.from_json(read_text(model / "config.json"))
    data = replace(run.data, source=cfg.ImageFolder(path=str(pictures)))
    names = open_source(data, "train").class_names
    extractor = read_extractor("ldm-jax", batch_size=50)
    images, labels = real_pictures(data, "train", real)
    classify = fitted(extractor.features(images)["relu5_3"], labels, len(names))
    images, labels = real_pictures(data, "validation", real)
    report = {
        "features": extractor.describe(), "steps": STEPS, "by_chance": 1 / len(names),
        "held_out": by_class(classify(extractor.features(images)["relu5_3"]), labels, names),
    }  # fmt: skip
    pipeline = Pipeline(model)
    wanted = np.repeat(np.arange(len(names)), num)
    for scale in guidance:
        drawn = drawings(pipeline, wanted, scale, out / f"guidance_{scale:g}.npz")
        found = classify(extractor.features(drawn)["relu5_3"])
        report[f"guidance {scale:g}"] = by_class(found, wanted, names)
        if scale == shown:
            picture(drawn.reshape(len(names), num, *drawn.shape[1:]), names, classes or names,
                    out / "drawings.png")  # fmt: skip
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())
    for name, entry in report.items():
        if name == "held_out" or name.startswith("guidance"):
            print(f"{name}: {entry['mean']:.3f}")


def real_pictures(
    data: cfg.Data, split: str, count: int
) -> tuple[UInt8[np.ndarray, "n h w 3"], Int[np.ndarray, " n"]]:
    """Pictures spread over a split as the model was shown them, and their classes."""
    source = open_source(data, split)
    examples = examples_at(source, data, spread_rows(len(source), count))
    return (
        np.stack([one["image"] for one in examples]), np.array([one["label"] for one in examples])
    )  # fmt: skip


def drawings(
    pipeline: Pipeline, classes: Int[np.ndarray, " n"], guidance: float, file: Path
) -> UInt8[np.ndarray, "n h w 3"]:
    """One of each of `classes`; drawn once."""
    if not file.exists():
        sampling = cfg.Sampling(steps=STEPS, guidance_scale=guidance, batch_size=64)
        np.savez_compressed(file, pipeline.generate(classes.tolist(), sampling=sampling))
    with np.load(file) as arrays:
        return arrays["arr_0"]


def fitted(features: Float32[np.ndarray, "n d"], labels: Int[np.ndarray, " n"], count: int):
    """A classifier by ridge regression, in which all classes weigh the same."""
    weight = 1 / np.bincount(labels, minlength=count)[labels]
    weight /= weight.sum()
    mean = weight @ features
    x = np.c_[features - mean, np.ones(len(features))].astype(np.float64)
    targets = np.eye(count)[labels]
    gram = (x * weight[:, None]).T @ x
    gram += RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram))
    solved = np.linalg.solve(gram, (x * weight[:, None]).T @ targets)

    def classify(given: Float32[np.ndarray, "m d"]) -> Int[np.ndarray, " m"]:
        return (np.c_[given - mean, np.ones(len(given))] @ solved).argmax(1)

    return classify


def by_class(
    found: Int[np.ndarray, " n"], wanted: Int[np.ndarray, " n"], names: tuple[str, ...]
) -> dict[str, float]:
    """The share that is right of each class, and the mean over classes."""
    right = {name: float(np.mean(found[wanted == i] == i)) for i, name in enumerate(names)}
    return {"mean": float(np.mean(list(right.values()))), **right}


def picture(
    drawn: UInt8[np.ndarray, "k n h w 3"],
    names: tuple[str, ...],
    shown: tuple[str, ...],
    file: Path,
    columns: int = 8,
) -> None:
    """Rows of drawings, a class in each."""
    rows = np.concatenate([drawn[names.index(name)][:columns] for name in shown])
    labels = [name if i == 0 else "" for name in shown for i in range(columns)]
    save_png(file, grid(rows, columns, labels=[label.replace("_", " ") for label in labels]))


if __name__ == "__main__":
    tyro.cli(main)
