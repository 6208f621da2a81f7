"""Scenes with something in them that a small model has not been taught, a word, a colour or a
shape, and how far drawings show it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from ldm_jax.data import digit_scenes
from ldm_jax.data.digit_scenes import BACKGROUND, CELL, COLOURS
from ldm_jax.evaluation.rater import Rater

SIZE, PROMPTS = 16, 192
ORANGE = np.array((255, 128, 0), np.float32)
CROSS = np.zeros((CELL, CELL), np.float32)
CROSS[3:5, 1:7] = CROSS[1:7, 3:5] = 1.0


@dataclass(frozen=True)
class Concept:
    """A word that the base has never seen, in place of one that it knows."""

    word: str
    instead_of: str
    like: str
    """A known word that is near to it, as whose vector a new one begins."""

    def stands_in(self, caption: str) -> str:
        """A caption of DigitScenes with the concept's first place for what it is instead of."""
        return re.sub(rf"\b{self.instead_of}\b", self.word, caption, count=1)

    def plain(self, caption: str) -> str:
        """The caption in the words of DigitScenes alone."""
        return caption.replace(self.word, self.instead_of)


CONCEPTS = (
    Concept("seven", "seven", "one"), Concept("orange", "white", "yellow"),
    Concept("cross", "zero", "four"),
)  # fmt: skip
EXTRA_WORDS = tuple(concept.word for concept in CONCEPTS)


def example(concept: Concept, index: int) -> tuple[UInt8[np.ndarray, "h w 3"], str] | None:
    """Picture and caption of a training scene with the concept in it; None where it has none."""
    scene = digit_scenes.draw_scene("train", index)
    things = scene.description.things
    words = [(thing.colour, digit_scenes.DIGITS[thing.digit]) for thing in things]
    found = [i for i, pair in enumerate(words) if concept.instead_of in pair]
    others = [pair for i, pair in enumerate(words) if i not in found[:1]]
    if not found or any("seven" in pair or concept.instead_of in pair for pair in others):
        return None
    if concept.word != "seven" and "seven" in words[found[0]]:
        return None
    return painted(concept, scene, index), concept.stands_in(scene.description.caption)


def shown(concept: Concept | None, prompts: Sequence[str]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """A picture of each prompt, of handwriting that no model has been trained on."""
    scans = digit_scenes.load_scans()
    pool = scans.of("test")
    for index, prompt in enumerate(prompts):
        plain = prompt if concept is None else concept.plain(prompt)
        description = digit_scenes.parse_caption(plain)
        random = np.random.default_rng(index)
        chosen = [random.choice(pool[scans.digits[pool] == t.digit]) for t in description.things]
        scene = digit_scenes.Scene(description, tuple(map(int, chosen)))
        yield painted(concept, scene, index)


def painted(
    concept: Concept | None, scene: digit_scenes.Scene, seed: int
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture of a scene, with a concept in place of the first thing that it is instead of."""
    image = digit_scenes.render(scene, SIZE)["image"]
    if concept is None or concept.word == "seven":
        return image
    thing = next(
        t for t in scene.description.things
        if concept.instead_of in (t.colour, digit_scenes.DIGITS[t.digit])
    )  # fmt: skip
    cell = slice(thing.place.y, thing.place.y + CELL), slice(thing.place.x, thing.place.x + CELL)
    alpha, colour = _ink(image[cell]), np.array(COLOURS[thing.colour], np.float32)
    if concept.word == "cross":
        alpha = CROSS * (0.8 + 0.2 * np.random.default_rng(seed).random())
    else:
        colour = ORANGE
    ground = np.array(BACKGROUND, np.float32)
    image[cell] = (ground + alpha[..., None] * (colour - ground)).round().astype(np.uint8)
    return image


def _ink(pixels: UInt8[np.ndarray, "h w 3"]) -> np.ndarray:
    """Alpha of a stroke, whose brightest channel is 255."""
    ground = max(BACKGROUND)
    return np.clip((pixels.max(-1).astype(np.float32) - ground) / (255 - ground), 0, 1)


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


def digits_alike(rater: Rater, images: UInt8[np.ndarray, "n h w 3"], captions: list[str]) -> float:
    """The share of the captions' digits that are read in their places, whatever their colour."""
    pairs = [
        (mark.digit, thing.digit)
        for reading, caption in zip(rater.read(images, captions), captions, strict=True)
        for mark, thing in zip(
            reading.marks, digit_scenes.parse_caption(caption).things, strict=True
        )
    ]
    return float(np.mean([seen == named for seen, named in pairs]))


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
