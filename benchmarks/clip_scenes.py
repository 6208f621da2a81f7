"""Measures a CLIP of DigitScenes: `python -m benchmarks.clip_scenes --clip=runs/clip --out=clip`.

How often the right caption and the right picture are found among so many held-out ones; how often
the CLIP score puts a right picture before one that differs from its caption in one word; and with
`--model` and `--rater`, how often it agrees with the rater on which of two drawings of a caption
shows it. OUT/report.json has the numbers; drawings are kept beside it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from jaxtyping import Bool, Float, UInt8

from ldm_jax import config as cfg
from ldm_jax.core.files import write_atomically
from ldm_jax.data import digit_scenes
from ldm_jax.data.digit_scenes import Description, Scene
from ldm_jax.evaluation.features.clip import ClipEmbedder, read_clip_embedder
from ldm_jax.evaluation.rater import Rater
from ldm_jax.generation.pipeline import Pipeline

SPLIT = "test"
DRAWINGS = 8
"""Of each caption."""
COUNTS = ("single", "double", "triple")


def main(
    clip: Path,
    out: Path,
    pool: int = 256,
    model: Path | None = None,
    rater: Path | None = None,
    captions: int = 96,
) -> None:
    """Measures `clip` on `pool` pictures, and on DRAWINGS drawings of each of so many captions by
    `model`."""
    out.mkdir(parents=True, exist_ok=True)
    embedder = read_clip_embedder(clip, batch_size=128)
    scenes = held_out_scenes(pool)
    report: dict[str, Any] = {
        "embedder": embedder.describe(), "retrieval": retrieval(embedder, scenes),
        "one_word": one_word(embedder, scenes),
    }  # fmt: skip
    if model is not None and rater is not None:
        prompts = digit_scenes.held_out_prompts(captions)
        images = drawings(model, prompts, out / "drawings.npz")
        report["drawings"] = agreement(embedder, Rater.load(rater), images, prompts)
    print(json.dumps(report, indent=2))
    write_atomically(out / "report.json", (json.dumps(report, indent=2) + "\n").encode())


def held_out_scenes(count: int) -> list[Scene]:
    """The first scenes that differ from each other in what they show, not only in words: `a red
    three left of a blue one` and `a blue one right of a red three` are one."""
    found: dict[frozenset[Any], Scene] = {}
    index = 0
    while len(found) < count:
        scene = digit_scenes.draw_scene(SPLIT, index)
        found.setdefault(frozenset(scene.description.things), scene)
        index += 1
    return [*found.values()]


def pictures(scenes: list[Scene]) -> UInt8[np.ndarray, "n 16 16 3"]:
    return np.stack([digit_scenes.render(scene)["image"] for scene in scenes])


def retrieval(embedder: ClipEmbedder, scenes: list[Scene]) -> dict[str, Any]:
    """Top-1 accuracy in both directions among all scenes, of all and by the number of digits."""
    images = embedder.images(pictures(scenes))
    texts = embedder.texts([scene.description.caption for scene in scenes])
    cosines = images @ texts.T
    own = np.arange(len(scenes))
    found = {
        "image_to_text": cosines.argmax(1) == own, "text_to_image": cosines.argmax(0) == own
    }  # fmt: skip
    return {"pool": len(scenes)} | {
        name: by_count(right, [scene.description for scene in scenes])
        for name, right in found.items()
    }


def by_count(right: Bool[np.ndarray, " n"], told: list[Description]) -> dict[str, float]:
    """Shares of all, and of descriptions of one, two and three digits."""
    counts = np.array([len(one.things) for one in told])
    shares = {name: float(right[counts == n].mean()) for n, name in enumerate(COUNTS, 1)}
    return shares | {"all": float(right.mean())}


def one_word(embedder: ClipEmbedder, scenes: list[Scene]) -> dict[str, float]:
    """How often a scene's caption is nearer to its picture than to that of the scene with another
    digit, another colour, or two different digits in each other's place."""
    random = np.random.default_rng(0)
    texts = embedder.texts([scene.description.caption for scene in scenes])
    right = cosines(embedder.images(pictures(scenes)), texts)
    found = {}
    for what in ("digit", "colour", "place"):
        rows = [n for n, scene in enumerate(scenes) if what != "place" or _all_differ(scene)]
        wrong = pictures([changed(scenes[n], what, random) for n in rows])
        found[what] = float((right[rows] > cosines(embedder.images(wrong), texts[rows])).mean())
    return found


def _all_differ(scene: Scene) -> bool:
    """Whether it has several digits, and no two look alike."""
    things = {(thing.digit, thing.colour) for thing in scene.description.things}
    return len(things) == len(scene.scans) > 1


def changed(scene: Scene, what: str, random: np.random.Generator) -> Scene:
    """The scene with another digit, another colour, or two digits in each other's place."""
    things, scans = [*scene.description.things], [*scene.scans]
    n = int(random.integers(len(things)))
    if what == "colour":
        others = [name for name in digit_scenes.COLOURS if name != things[n].colour]
        things[n] = replace(things[n], colour=str(random.choice(others)))
    elif what == "digit":
        digit = (things[n].digit + int(random.integers(1, 10))) % 10
        members = digit_scenes.load_scans()
        pool = members.of(SPLIT)
        pool = pool[members.digits[pool] == digit]
        things[n], scans[n] = replace(things[n], digit=digit), int(random.choice(pool))
    else:
        m = (n + 1) % len(things)
        things[n], things[m] = (
            replace(things[n], place=things[m].place), replace(things[m], place=things[n].place)
        )  # fmt: skip
    return Scene(replace(scene.description, things=tuple(things)), tuple(scans))


def cosines(
    images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    return (images * texts).sum(1)


def drawings(model: Path, prompts: list[str], file: Path) -> UInt8[np.ndarray, "n k 16 16 3"]:
    """DRAWINGS of each prompt by few steps and without guidance, so that some are wrong."""
    if not file.exists():
        sampling = cfg.Sampling(steps=10, guidance_scale=1.0)
        wishes = [prompt for prompt in prompts for _ in range(DRAWINGS)]
        images = Pipeline(model).generate(wishes, sampling=sampling)
        np.savez_compressed(file, images=images.reshape(len(prompts), DRAWINGS, *images.shape[1:]))
    with np.load(file) as found:
        return found["images"]


def agreement(
    embedder: ClipEmbedder,
    rater: Rater,
    images: UInt8[np.ndarray, "n k 16 16 3"],
    prompts: list[str],
) -> dict[str, float]:
    """Of all pairs of a right and a wrong drawing of one caption, as the rater sees it, the share
    in which the right one has the higher CLIP score."""
    count, each = images.shape[:2]
    flat = images.reshape(count * each, *images.shape[2:])
    right = rater.correct(flat, [p for p in prompts for _ in range(each)]).reshape(count, each)
    texts = np.repeat(embedder.texts(prompts), each, axis=0)
    scores = cosines(embedder.images(flat), texts).reshape(count, each)
    ahead = scores[:, :, None] > scores[:, None]
    pairs = right[:, :, None] & ~right[:, None]
    both = pairs.any((1, 2))
    best = np.take_along_axis(right, scores.argmax(1)[:, None], axis=1)[:, 0]
    return {
        "captions": count, "correct": float(right.mean()), "pairs": int(pairs.sum()),
        "captions_with_both": int(both.sum()), "agreement": float(ahead[pairs].mean()),
        "correct_of_the_best_scored": float(best.mean()),
    }  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main)
