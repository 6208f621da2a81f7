"""Teaches a small text model what it has never seen, by each method of fine-tuning, and scores it:
`python -m benchmarks.taught_concepts --out=runs/taught --first_stage=runs/demo/autoencoder`.

The base is `digit_scenes_text2img` trained on scenes without the digit seven. It knows neither a
seven, nor the colour orange, nor a cross: only its tokenizer knows the words. Each concept is
taught from `EXAMPLES` pictures and captions. Scores are shares of pictures of 192 held-out prompts
that show all that was asked for, of the concept and of what the base knew before. OUT/report.json
has the numbers, OUT/samples.png pictures of each row. What is there already is kept."""

import json
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import UInt8

from ldm_jax import config as cfg
from ldm_jax.cli.train import make_stage
from ldm_jax.convert.parts import model_config
from ldm_jax.core.files import write_atomically
from ldm_jax.data import digit_scenes
from ldm_jax.data.digit_scenes import BACKGROUND, CELL, COLOURS
from ldm_jax.evaluation.rater import Rater, train_rater
from ldm_jax.generation.class_images import draw_class_images
from ldm_jax.generation.pipeline import Pipeline
from ldm_jax.images.grid import grid, save_png
from ldm_jax.training.loop import fit

SIZE, SCENES, EXAMPLES, CLASSES, PROMPTS = 16, 12_000, 24, 96, 192
SAMPLING = cfg.Sampling(steps=25, guidance_scale=2.0, batch_size=64)
ORANGE = np.array((255, 128, 0), np.float32)
CROSS = np.zeros((CELL, CELL), np.float32)
CROSS[3:5, 1:7] = CROSS[1:7, 3:5] = 1.0
CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class Concept:
    """A word that the base has never seen, in place of one that it knows."""

    word: str
    instead_of: str

    def stands_in(self, caption: str) -> str:
        """A caption of DigitScenes with the concept's first place for what it is instead of."""
        return re.sub(rf"\b{self.instead_of}\b", self.word, caption, count=1)

    def plain(self, caption: str) -> str:
        """The caption in the words of DigitScenes alone."""
        return caption.replace(self.word, self.instead_of)


CONCEPTS = (Concept("seven", "seven"), Concept("orange", "white"), Concept("cross", "zero"))
EXTRA_WORDS = tuple(concept.word for concept in CONCEPTS)


# ------------------------------------------------------------------------------------- pictures


def example(concept: Concept, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], str] | None:
    """Picture and caption of a training scene with the concept in it; None where it has none."""
    scene = digit_scenes.example("train", index, SIZE)
    caption, image = str(scene["caption"]), np.array(scene["image"])
    things = digit_scenes.parse_caption(caption).things
    words = [(thing.colour, digit_scenes.DIGITS[thing.digit]) for thing in things]
    found = [i for i, pair in enumerate(words) if concept.instead_of in pair]
    others = [pair for i, pair in enumerate(words) if i not in found[:1]]
    if not found or any("seven" in pair or concept.instead_of in pair for pair in others):
        return None
    place = things[found[0]].place
    if concept.word != "seven" and "seven" in words[found[0]]:
        return None
    cell = slice(place.y, place.y + CELL), slice(place.x, place.x + CELL)
    colour = np.array(COLOURS[things[found[0]].colour], np.float32)
    alpha = _ink(image[cell])
    if concept.word == "cross":
        alpha = CROSS * (0.8 + 0.2 * np.random.default_rng(index).random())
    if concept.word == "orange":
        colour = ORANGE
    if concept.word != "seven":
        ground = np.array(BACKGROUND, np.float32)
        image[cell] = (ground + alpha[..., None] * (colour - ground)).round().astype(np.uint8)
    return image, concept.stands_in(caption)


def _ink(pixels: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """Alpha of a stroke, whose brightest channel is 255."""
    ground = max(BACKGROUND)
    return np.clip((pixels.max(-1).astype(np.float32) - ground) / (255 - ground), 0, 1)


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


def taught_run(method: str, model: cfg.Model, data: Path, classes: Path) -> cfg.DiffusionRun:
    """A run of the shipped config of `method` on the examples of a concept."""
    prompts = digit_scenes.held_out_prompts(400, "validation")
    prompts = [*dict.fromkeys(prompt for prompt in prompts if "seven" not in prompt)]
    source = cfg.DreamBooth(
        path=str(data), class_path=str(classes), class_prompts=tuple(prompts[:CLASSES]),
        class_images=4,
    )  # fmt: skip
    config, _, *option = method.partition(":")
    file = cfg.open_config(str(CONFIGS / f"{config}.py"))
    run = file.get_config(init=model, **({"method": option[0]} if option[0] else {}))
    steps = 400
    return replace(
        run, data=cfg.Data(source, SIZE, batch_size=32), **CHANGES.get(method, {}),
        optim=cfg.Optim(
            learning_rate=RATES[method], schedule="cosine", ema_decay=None, weight_decay=0.01
        ),
        loop=replace(run.loop, steps=steps, checkpoint_every=steps, sample_every=0, remat=False,
                     log_every=50),
    )  # fmt: skip


_WORDS_TOO = ("adapter", r"conditioners/text_encoder/embeddings/token_embedding/embedding")
CHANGES = {
    "dreambooth:lora": {
        "train": _WORDS_TOO,
        "adapter": cfg.ModuleAdapter(cfg.LoRA(rank=16), modules=("all",)),
    },
    "dreambooth:unet": {"train": ("all",)},
}
RATES = {"dreambooth:lora": 1e-3, "dreambooth:unet": 2e-4}


def train(run: cfg.DiffusionRun, workdir: Path, **models: str | None) -> float:
    """Trains unless that is done; seconds that it took."""
    report = workdir / "seconds.txt"
    if not report.exists():
        began = time.perf_counter()
        fit(run, workdir, lambda mesh: make_stage(run, workdir, mesh, **models))
        report.write_text(f"{time.perf_counter() - began:.1f}")
    return float(report.read_text())


# --------------------------------------------------------------------------------------- scores


def prompts_of(concept: Concept | None) -> list[str]:
    """Held-out prompts with the concept in them, or without any."""
    found = []
    for prompt in digit_scenes.held_out_prompts(6000):
        if concept is None and "seven" not in prompt:
            found.append(prompt)
        if concept is None or (concept.word != "seven" and "seven" in prompt):
            continue
        if len(re.findall(rf"\b{concept.instead_of}\b", prompt)) == 1:
            found.append(concept.stands_in(prompt))
    return found[:PROMPTS]


def score(
    rater: Rater, concept: Concept | None, images: UInt8[np.ndarray, "n h w 3"], prompts: list[str]
) -> dict[str, float]:
    """`all`: shares of pictures that show all that is asked for; `concept`: of those whose one
    place shows the concept, whatever is elsewhere."""
    if concept is None:
        return {"all": float(np.mean(rater.correct(images, prompts)))}
    plain = [concept.plain(prompt) for prompt in prompts]
    shown, complete = [], []
    for image, reading, prompt in zip(images, rater.read(images, plain), plain, strict=True):
        right = []
        for mark, thing in zip(
            reading.marks, digit_scenes.parse_caption(prompt).things, strict=True
        ):
            named = concept.instead_of in (thing.colour, digit_scenes.DIGITS[thing.digit])
            y, x = thing.place.y, thing.place.x
            pixels = image[y : y + CELL, x : x + CELL]
            colour = _is_orange(pixels) if named and concept.word == "orange" else (
                mark.colour == thing.colour)  # fmt: skip
            digit = _is_cross(pixels) if named and concept.word == "cross" else (
                mark.digit == thing.digit)  # fmt: skip
            right.append(colour and digit)
            if named:
                shown.append(colour and digit)
        complete.append(all(right) and reading.stray <= 0.25)
    return {"concept": float(np.mean(shown)), "all": float(np.mean(complete))}


def _is_orange(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether most of the ink is nearer to orange than to the colours of DigitScenes."""
    palette = np.array([*COLOURS.values(), ORANGE], np.float32) / 255
    ink = _ink(pixels)
    strong = ink > max(0.4 * ink.max(), 0.2)
    if not strong.any():
        return False
    hue = pixels[strong].astype(np.float32) / pixels[strong].max(-1, keepdims=True)
    nearest = np.linalg.norm(hue[:, None] - palette[None], axis=-1).argmin(1)
    return float(np.mean(nearest == len(palette) - 1)) >= 0.6


def _is_cross(pixels: UInt8[np.ndarray, "h w 3"]) -> bool:
    """Whether the ink is that of the cross: a correlation of at least 0.85, which no digit has."""
    ink = _ink(pixels)
    return ink.std() > 0.05 and float(np.corrcoef(ink.ravel(), CROSS.ravel())[0, 1]) >= 0.85


def main(
    out: Path, first_stage: Path, only: tuple[str, ...] = (), methods: tuple[str, ...] = ()
) -> None:
    """Trains and scores what is missing; `only` some concepts, by some `methods`."""
    if not (out / "base_data").exists():
        write_base(out / "base_data")
    base = out / "base"
    seconds = {"base": train(base_run(out / "base_data"), base, first_stage=str(first_stage))}
    rater = train_rater()
    report = out / "report.json"
    rows: dict[str, dict] = json.loads(report.read_text()) if report.exists() else {}
    shown, labels = [], []
    model = model_config(str(base))
    for concept in CONCEPTS:
        if only and concept.word not in only:
            continue
        data, classes = out / f"data_{concept.word}", out / "classes"
        if not data.exists():
            write_concept(concept, data)
        for method in ("", *(methods or RATES)):
            name = f"{concept.word} {method or 'before'}"
            workdir = base
            if method:
                workdir = out / name.replace(" ", "_").replace(":", "_")
                run = taught_run(method, model, data, classes)
                draw_class_images(Pipeline(base), run.data.source, (SIZE, SIZE), 0, lambda n: None)
                seconds[name] = train(run, workdir, init=str(base))
            if name not in rows:
                pipeline = Pipeline(workdir)
                rows[name] = {"seconds": seconds.get(name)}
                for about in (concept, None):
                    prompts = prompts_of(about)
                    images = pipeline.generate(prompts, sampling=SAMPLING)
                    found = score(rater, about, images, prompts)
                    rows[name] |= {
                        f"{'new' if about else 'known'}_{k}": v for k, v in found.items()
                    }
                    if about is not None:
                        np.savez_compressed(out / f"{name}.npz".replace(":", "_"), images=images,
                                            prompts=np.array(prompts))  # fmt: skip
                write_atomically(report, (json.dumps(rows, indent=2) + "\n").encode())
            print(name, rows[name], flush=True)
            with np.load(out / f"{name}.npz".replace(":", "_")) as drawn:
                shown += list(drawn["images"][:6])
                labels += [f"{name}: {prompt}" for prompt in drawn["prompts"][:6]]
    save_png(out / "samples.png", grid(np.stack(shown), 6, labels=labels, scale=8))


if __name__ == "__main__":
    tyro.cli(main)
