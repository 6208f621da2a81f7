"""Teaches a small text model what it has never seen, by each method of fine-tuning, and scores it:
`python -m benchmarks.taught_concepts --out=runs/taught --first_stage=runs/demo/autoencoder`.

The base is `digit_scenes_text2img` trained on scenes without the digit seven. It knows neither a
seven, nor the colour orange, nor a cross: only its tokenizer knows the words. Each concept is
taught from `EXAMPLES` pictures and captions; a ControlNet learns from the base's own scenes to
follow edges, and is then shown those of pictures with the concept in them. Scores are shares of
pictures of 192 held-out prompts that show all that was asked for, of the concept and of what the
base knew before. OUT/report.json has the numbers, OUT/samples.png pictures of each row. What is
there already is kept."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import UInt8

from benchmarks.taught_scenes import (
    CONCEPTS,
    EXTRA_WORDS,
    SIZE,
    Concept,
    digits_alike,
    example,
    prompts_of,
    score,
    shown,
)
from ldm_jax import config as cfg
from ldm_jax.cli.train import make_stage
from ldm_jax.convert.parts import model_config
from ldm_jax.core.files import write_atomically
from ldm_jax.data import digit_scenes
from ldm_jax.data.edges import canny_edges
from ldm_jax.evaluation.rater import Rater, train_rater
from ldm_jax.generation.class_images import draw_class_images
from ldm_jax.generation.conditions import NO_PICTURE
from ldm_jax.generation.control_hints import Hints
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.grid import axis_grid, save_png
from ldm_jax.training.loop import fit

SCENES, EXAMPLES, CLASSES = 12_000, 24, 96
SAMPLING = cfg.Sampling(steps=25, guidance_scale=2.0, batch_size=64)
CONFIGS = Path(__file__).parents[1] / "configs"
SHOWN = 2
"""Pictures of each row in the sheet."""
EDGES = "edges"
"""The row of a ControlNet's scores that are of no concept."""


@dataclass(frozen=True)
class Method:
    """A shipped config as it is used here, and how what it trains is drawn with."""

    rate: float
    changes: dict[str, Any] = field(default_factory=dict)
    """Of the run."""
    beside: str | None = None
    """The choice of `Pipeline` that names what was trained; None: the work directory is a model."""
    steps: int = 400


_WORDS_TOO = ("adapter", r"conditioners/text_encoder/embeddings/token_embedding/embedding")
METHODS = {
    "textual_inversion": Method(3e-2, beside="embeddings", steps=200),
    "hypernetwork": Method(3e-3, beside="hypernetwork"),
    "dreambooth:lora": Method(1e-3, {
        "train": _WORDS_TOO,
        "adapter": cfg.ModuleAdapter(cfg.LoRA(rank=16), modules=("all",)),
    }),
    "dreambooth:unet": Method(2e-4, {"train": ("all",)}),
    "controlnet": Method(1e-3, beside="control"),
}  # fmt: skip


# ------------------------------------------------------------------------------------- pictures


def write_base(folder: Path) -> None:
    """Scenes without seven, and their captions."""
    folder.mkdir(parents=True)
    lines = []
    for index in range(SCENES):
        scene = digit_scenes.example("train", index, SIZE)
        if "seven" not in str(scene["caption"]):
            save_png(folder / f"{index:05d}.png", scene["image"])
            lines.append({"file_name": f"{index:05d}.png", "text": scene["caption"]})
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))


def write_concept(concept: Concept, folder: Path) -> None:
    """`EXAMPLES` pictures of the concept, each with its caption, as DreamBooth takes them."""
    inside = folder / f"1_a {concept.word}"
    inside.mkdir(parents=True)
    index = written = 0
    while written < EXAMPLES:
        if (found := example(concept, index)) is not None:
            save_png(inside / f"{index:05d}.png", found[0])
            (inside / f"{index:05d}.caption").write_text(found[1])
            written += 1
        index += 1


# ------------------------------------------------------------------------------------- training


def base_run(data: Path) -> cfg.DiffusionRun:
    """The run of `digit_scenes_text2img` on the folder, with a tokenizer that knows all words."""
    run = cfg.load(CONFIGS / "digit_scenes_text2img.py")
    text, *others = run.conditioners
    source = cfg.ImageFolder(path=str(data), validation_fraction=0.01)
    return replace(
        run, data=replace(run.data, source=source),
        conditioners=(replace(text, extra_words=EXTRA_WORDS), *others),
    )  # fmt: skip


def source_of(name: str, concept: Concept, out: Path) -> cfg.ImageFolder | cfg.DreamBooth:
    """What a method learns from: pictures of the concept, beside some of classes where these could
    be forgotten; or scenes without any concept."""
    if name == "controlnet":
        return cfg.ImageFolder(path=str(out / "base_data"), validation_fraction=0.01)
    data = str(out / f"data_{concept.word}")
    if name == "textual_inversion":
        return cfg.DreamBooth(path=data)
    prompts = digit_scenes.held_out_prompts(400, "validation")
    prompts = [*dict.fromkeys(prompt for prompt in prompts if "seven" not in prompt)]
    return cfg.DreamBooth(
        path=data, class_path=str(out / "classes"), class_prompts=tuple(prompts[:CLASSES]),
        class_images=4,
    )  # fmt: skip


def taught_run(name: str, concept: Concept, base: Path, out: Path) -> cfg.DiffusionRun:
    """A run of the shipped config of a method on the examples of a concept."""
    method = METHODS[name]
    config, _, *option = name.partition(":")
    file = cfg.open_config(str(CONFIGS / f"{config}.py"))
    options = {"method": option[0]} if option[0] else {}
    run = file.get_config(init=model_config(str(base)), **options)
    changes = dict(method.changes)
    if name == "textual_inversion":
        words = {"words": (concept.word,), "init_text": concept.like, "captions": "own"}
        changes["adapter"] = cfg.TextualInversion(**words)
    optim = replace(run.optim, learning_rate=method.rate, schedule="cosine")
    loop = replace(
        run.loop, steps=method.steps, checkpoint_every=method.steps, sample_every=0, remat=False,
        validate_every=method.steps, log_every=50,
    )  # fmt: skip
    data = cfg.Data(source_of(name, concept, out), SIZE, batch_size=32)
    return replace(run, data=data, optim=optim, loop=loop, **changes)


def train(run: cfg.DiffusionRun, workdir: Path, **models: str | None) -> float:
    """Trains unless that is done; seconds that it took."""
    report = workdir / "seconds.txt"
    if not report.exists():
        began = time.perf_counter()
        fit(run, workdir, lambda mesh: make_stage(run, workdir, mesh, **models))
        report.write_text(f"{time.perf_counter() - began:.1f}")
    return float(report.read_text())


def taught(name: str, concept: Concept, base: Path, out: Path) -> tuple[Pipeline, float]:
    """The model after a method has taught it the concept, and the seconds that it took."""
    method = METHODS[name]
    run = taught_run(name, concept, base, out)
    if getattr(run.data.source, "class_path", ""):
        draw_class_images(Pipeline(base), run.data.source, (SIZE, SIZE), 0, lambda n: None)
    # A ControlNet learns no concept, and so is trained once.
    of = name if name == "controlnet" else f"{concept.word}_{name.replace(':', '_')}"
    seconds = train(run, out / of, init=str(base))
    if method.beside is None:
        return Pipeline(out / of), seconds
    return Pipeline(base, **{method.beside: (str(out / of),)}), seconds


# ---------------------------------------------------------------------------------------- drawing


def drawn(
    pipeline: Pipeline, prompts: Sequence[str], pictures: Sequence[UInt8[np.ndarray, "h w 3"]]
) -> UInt8[np.ndarray, "n h w 3"]:
    """A drawing of each prompt; of a model with a ControlNet by the edges of the picture, too."""
    if not pipeline.model.controls:
        return pipeline.generate(prompts, sampling=SAMPLING)
    sampling = replace(SAMPLING, batch_size=1)

    def one(place: int) -> UInt8[np.ndarray, "h w 3"]:
        hints = Hints((canny_edges(pictures[place]),), ((0.0, 1.0),))
        picture = replace(NO_PICTURE, hints=hints)
        return pipeline.generate(
            prompts[place : place + 1], sampling=sampling, first_prompt=place, picture=picture
        )[0]

    return np.stack([one(place) for place in range(len(prompts))])


def score_new(pipeline: Pipeline, rater: Rater, concept: Concept, kept: Path) -> dict[str, float]:
    """What the model draws of the concept; the pictures are kept."""
    prompts = prompts_of(concept)
    images = drawn(pipeline, prompts, [*shown(concept, prompts)])
    np.savez_compressed(kept, images=images, prompts=np.array(prompts))
    found = score(rater, concept, images, prompts)
    return {f"new_{name}": value for name, value in found.items()}


def score_known(pipeline: Pipeline, rater: Rater) -> dict[str, float]:
    """What the model draws of the scenes that the base knew."""
    prompts = prompts_of(None)
    images = drawn(pipeline, prompts, [*shown(None, prompts)])
    return {f"known_{name}": v for name, v in score(rater, None, images, prompts).items()}


def edges_alone(pipelines: Mapping[str, Pipeline], rater: Rater) -> dict[str, float]:
    """The share of the digits of known scenes that each model draws by their edges, without a
    prompt."""
    prompts = prompts_of(None)
    pictures, empty = [*shown(None, prompts)], [""] * len(prompts)
    return {
        f"digits_{name}": digits_alike(rater, drawn(pipeline, empty, pictures), prompts)
        for name, pipeline in pipelines.items()
    }


def sheet(out: Path, names: Sequence[str]) -> UInt8[np.ndarray, "h w 3"] | None:
    """Pictures of each concept, one column for each of `names`, and the edges that ControlNets were
    shown; None where some are missing."""
    rows, down = [], []
    for concept in CONCEPTS:
        files = [kept_images(out, concept, name) for name in names]
        if not all(file.exists() for file in files):
            return None
        columns = []
        for file in files:
            with np.load(file) as found:
                columns.append(found["images"][:SHOWN])
                prompts = found["prompts"][:SHOWN].tolist()
        columns.append(np.stack([canny_edges(one) for one in shown(concept, prompts)]))
        rows += [column[row] for row in range(SHOWN) for column in columns]
        down += prompts
    titles = [name.replace("_", " ").replace("dreambooth:", "") for name in names]
    return axis_grid(np.stack(rows), [*titles, "its edges"], down, scale=6)


def kept_images(out: Path, concept: Concept, name: str) -> Path:
    """The file with what a row's model drew of the concept."""
    return out / f"{concept.word} {name.replace(':', '_')}.npz"


def main(
    out: Path, first_stage: Path, only: tuple[str, ...] = (), methods: tuple[str, ...] = ()
) -> None:
    """Trains and scores what is missing; `only` some concepts, by some `methods`."""
    if not (out / "base_data").exists():
        write_base(out / "base_data")
    base = out / "base"
    train(base_run(out / "base_data"), base, first_stage=str(first_stage))
    rater = train_rater()
    report = out / "report.json"
    rows: dict[str, dict] = json.loads(report.read_text()) if report.exists() else {}
    for concept in CONCEPTS:
        if only and concept.word not in only:
            continue
        if not (out / f"data_{concept.word}").exists():
            write_concept(concept, out / f"data_{concept.word}")
        for name in ("before", *(methods or METHODS)):
            row = f"{concept.word} {name}"
            if row not in rows:
                pipeline, seconds = Pipeline(base), None
                if name != "before":
                    pipeline, seconds = taught(name, concept, base, out)
                kept = kept_images(out, concept, name)
                rows[row] = {"seconds": seconds, **score_new(pipeline, rater, concept, kept)}
                if name != "controlnet":
                    rows[row] |= score_known(pipeline, rater)
                elif EDGES not in rows:
                    rows[EDGES] = edges_alone({"before": Pipeline(base), "after": pipeline}, rater)
                    rows[EDGES] |= score_known(pipeline, rater)
                write_atomically(report, (json.dumps(rows, indent=2) + "\n").encode())
            print(row, rows[row], flush=True)
    found = sheet(out, ("before", *METHODS))
    if found is not None:
        save_png(out / "samples.png", found)


if __name__ == "__main__":
    tyro.cli(main)
