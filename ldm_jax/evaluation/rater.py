"""The rater marks pictures of DigitScenes: it reads digit and colour at each place that a caption
names. A small convolutional network, trained on the training handwriting, reads the digits."""

import functools
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, UInt8

from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import FileFormatError, open_file
from ldm_jax.core.stores import as_path
from ldm_jax.data import digit_scenes
from ldm_jax.data.digit_scenes import BACKGROUND, CANVAS, CELL, COLOURS, Place

NOTHING = 10  # the network's class for patches that show no digit
FAINTEST = 0.35  # a place whose brightest stroke stays below this alpha is empty
COLOUR_SHARE = 0.6  # of a digit's ink must agree on one colour
COLOUR_REACH = 0.45  # greatest distance (RGB, brightest channel 1) from a colour's own
STRAY_INK = 0.25  # of a picture's ink may lie outside the places of the caption
_NAMES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), np.float32) / 255
_CHUNK = 256  # pictures are read in chunks of one shape, so that the network is compiled once

Parameters = dict[str, Float[Array, "..."]]


@dataclass(frozen=True)
class Mark:
    """What is seen at one place; None where nothing is recognised."""

    digit: int | None
    colour: str | None


@dataclass(frozen=True)
class Reading:
    """What is seen in one picture: a mark for each place of the caption, in its order, and the
    share of the picture's ink that lies outside of these places (0..1)."""

    marks: tuple[Mark, ...]
    stray: float


def _convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], stride: int
) -> Float[Array, "b i j d"]:
    """A 3x3 convolution with zero padding, as one matrix product over shifted copies: on CPU its
    gradient is several times faster than that of XLA's convolution at these sizes."""
    height, width = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [
        padded[:, y : y + height : stride, x_ : x_ + width : stride]
        for y in range(3)
        for x_ in range(3)
    ]
    return jnp.concatenate(shifted, -1) @ kernel.reshape(-1, kernel.shape[-1])


def _network(parameters: Parameters, patches: Float[Array, "b 8 8"]) -> Float[Array, "b 11"]:
    """Logits of the ten digits and of NOTHING."""
    x = patches[:, :, :, None]
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2)):
        x = _convolve(x, parameters[f"{name}.kernel"], stride)
        x = jax.nn.relu(x + parameters[f"{name}.bias"][None, None, None, :])
    x = x.reshape(x.shape[0], -1)
    x = jax.nn.relu(x @ parameters["dense1.kernel"] + parameters["dense1.bias"][None, :])
    return x @ parameters["dense2.kernel"] + parameters["dense2.bias"][None, :]


_SHAPES = {
    "conv1": (3, 3, 1, 16),
    "conv2": (3, 3, 16, 32),
    "conv3": (3, 3, 32, 64),
    "dense1": (2 * 2 * 64, 96),
    "dense2": (96, 11),
}
_LARGEST = 2**24
"""Bytes of a rater's file, at most; one has some 200 KB."""
_logits = jax.jit(_network)


def _initial(random: np.random.Generator) -> dict[str, np.ndarray]:
    """He initialisation (He et al. 2015, eq. 10); biases zero."""
    parameters = {}
    for name, shape in _SHAPES.items():
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        parameters[f"{name}.kernel"] = (random.normal(size=shape) * scale).astype(np.float32)
        parameters[f"{name}.bias"] = np.zeros(shape[-1:], np.float32)
    return parameters


def _sample(
    images: Float[np.ndarray, "n h w"], y: Float[np.ndarray, "n p p"], x: Float[np.ndarray, "n p p"]
) -> Float[np.ndarray, "n p p"]:
    """Bilinear samples of each image at (y, x); zero outside."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    height, width = images.shape[1:]
    y, x = np.clip(y + 1, 0, height + 0.999), np.clip(x + 1, 0, width + 0.999)
    top, left = y.astype(np.int64), x.astype(np.int64)
    down, right = y - top, x - left
    n = np.arange(len(images))[:, None, None]
    upper = padded[n, top, left] * (1 - right) + padded[n, top, left + 1] * right
    lower = padded[n, top + 1, left] * (1 - right) + padded[n, top + 1, left + 1] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)


def _distorted(
    random: np.random.Generator, cells: Float[np.ndarray, "n 8 8"]
) -> Float[np.ndarray, "n 8 8"]:
    """Patches as the rater meets them: digits turned, sheared, stretched and shifted, blurred and
    with noise, as a decoder or a sampler would leave them."""
    n = len(cells)
    turn = random.normal(0, 0.1, n)
    matrix = np.stack([np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)], 1)
    matrix = matrix.reshape(n, 2, 2) * random.normal(1, 0.07, (n, 2, 1))
    matrix[:, 1, 0] += random.normal(0, 0.12, n)
    shift, middle = random.normal(0, 0.3, (n, 2)), (CELL - 1) / 2
    grid = np.arange(CELL) - middle
    y = grid[None, :, None] - shift[:, 0, None, None]
    x = grid[None, None, :] - shift[:, 1, None, None]
    m = matrix[:, :, :, None, None]
    patches = _sample(
        cells,
        m[:, 0, 0] * y + m[:, 0, 1] * x + middle,
        m[:, 1, 0] * y + m[:, 1, 1] * x + middle,
    )
    blur = np.where(random.random(n) < 0.5, 0, random.random(n) * 0.6).astype(np.float32)
    patches += blur[:, None, None] * (_smooth(patches) - patches)
    noise = np.maximum(random.uniform(-0.06, 0.08, (n, 1, 1)), 0).astype(np.float32)
    patches += noise * random.standard_normal(patches.shape, np.float32)
    return patches


def _smooth(patches: Float[np.ndarray, "n h w"]) -> Float[np.ndarray, "n h w"]:
    """Each image under the binomial filter (1, 2, 1) on both axes."""
    padded = np.pad(patches, ((0, 0), (1, 1), (1, 1)))
    rows = (padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]) / 4
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 4


def _garbage(random: np.random.Generator, n: int) -> Float[np.ndarray, "n 8 8"]:
    """Patches without a digit: noise of several grain sizes and levels, and even grey."""
    noise = random.normal(size=(n, CELL, CELL)).astype(np.float32)
    coarse = np.stack([noise, _smooth(noise) * 2, _smooth(_smooth(_smooth(noise))) * 3])
    chosen = coarse[random.integers(0, 3, n), np.arange(n)]
    level = random.uniform(-0.5, 1.0, (n, 1, 1)).astype(np.float32)
    return np.clip(level + chosen * random.uniform(0, 0.8, (n, 1, 1)).astype(np.float32), 0, 1)


def _normalised(patches: Float[np.ndarray, "n 8 8"]) -> Float[np.ndarray, "n 8 8"]:
    """Patches scaled so that their brightest pixel is 1."""
    peak = np.maximum(patches.max((1, 2), keepdims=True), 0.1)
    return np.clip(patches / peak, 0, 1).astype(np.float32)


@functools.partial(jax.jit, static_argnames="steps")
def _fit(
    parameters: Parameters,
    patches: Float[Array, "s b 8 8"],
    labels: Int[Array, "s b"],
    steps: int,
) -> Parameters:
    rate = optax.cosine_onecycle_schedule(steps, 4e-3)
    optimiser = optax.adamw(rate, weight_decay=1e-3)

    def loss(p: Parameters, x: Float[Array, "b 8 8"], y: Int[Array, " b"]) -> Float[Array, ""]:
        targets = optax.smooth_labels(jax.nn.one_hot(y, 11, dtype=jnp.float32), 0.05)
        return optax.softmax_cross_entropy(_network(p, x), targets).mean()

    def step(carry, batch):
        p, state = carry
        gradients = jax.grad(loss)(p, *batch)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer count with floats
            updates, state = optimiser.update(gradients, state, p)
        return (optax.apply_updates(p, updates), state), None

    carry, _ = lax.scan(step, (parameters, optimiser.init(parameters)), (patches, labels))
    return carry[0]


def train_rater(seed: int = 0, steps: int = 1_000, batch: int = 96) -> "Rater":
    """A rater trained on the training handwriting of DigitScenes alone; a few seconds."""
    random = np.random.default_rng(seed)
    scans = digit_scenes.load_scans()
    train = scans.of("train")
    count = steps * batch
    rows = random.permutation(np.resize(train, count))
    patches = _distorted(random, scans.alpha[rows].astype(np.float32) / 255)
    labels = scans.digits[rows].astype(np.int32)
    spoilt = random.random(count) < 0.08
    patches[spoilt] = _garbage(random, int(spoilt.sum()))
    labels[spoilt] = NOTHING
    patches = _normalised(patches).reshape(steps, batch, CELL, CELL)
    fitted = _fit(_initial(random), patches, labels.reshape(steps, batch), steps)
    return Rater({name: np.asarray(value) for name, value in fitted.items()})


def _to_canvas(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 16 16 3"]:
    """Pictures in 0..1 without their background, averaged down to the 16-pixel canvas."""
    n, height, width, _ = images.shape
    if height != width or height not in digit_scenes.SIZES:
        raise ValueError(
            f"the rater got pictures of {height} x {width} pixels; it reads squares of "
            f"{digit_scenes.SIZES}"
        )
    side = height // CANVAS
    small = images.reshape(n, CANVAS, side, CANVAS, side, 3).mean((2, 4), dtype=np.float32)
    ground = np.array(BACKGROUND, np.float32)
    return np.clip((small - ground) / (255 - ground), 0, 1).astype(np.float32)


def _cell(place: Place) -> tuple[slice, slice]:
    """The part of the canvas that is a place's."""
    return slice(place.y, place.y + CELL), slice(place.x, place.x + CELL)


def _colour(pixels: Float[np.ndarray, "h w 3"]) -> str | None:
    """The colour on which the ink agrees: each pixel votes for the nearest, strong ink counts
    more. None where ink is faint, of no known colour, or of several."""
    ink = pixels.max(-1)
    if ink.max() < FAINTEST:
        return None
    strong = ink > 0.4 * ink.max()
    hue = pixels[strong] / ink[strong][:, None]
    distance = np.linalg.norm(hue[:, None, :] - _PALETTE[None], axis=-1)
    weight = ink[strong] ** 2
    votes = np.zeros(len(_NAMES), np.float32)
    near = distance.min(1) < COLOUR_REACH
    np.add.at(votes, distance.argmin(1)[near], weight[near])
    return _NAMES[votes.argmax()] if votes.max() >= COLOUR_SHARE * weight.sum() else None


class Rater:
    """Reads pictures of DigitScenes. Made by `train_rater` or `Rater.load`."""

    def __init__(self, parameters: dict[str, Float[np.ndarray, "..."]]):
        wanted = {f"{n}.kernel": s for n, s in _SHAPES.items()}
        wanted |= {f"{n}.bias": s[-1:] for n, s in _SHAPES.items()}
        given = {name: value.shape for name, value in parameters.items()}
        if given != wanted:
            wrong = sorted(n for n in given.keys() | wanted if given.get(n) != wanted.get(n))
            raise ValueError(f"a rater's arrays do not have the expected names and shapes: {wrong}")
        self.parameters = parameters

    def save(self, path: str | os.PathLike) -> None:
        """Writes one npz file, exactly at `path`; renamed into place, so never half-written."""
        target = as_path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, **self.parameters)
        write_atomically(target, content.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> "Rater":
        """Reads what `save` wrote.

        Raises:
            ValueError: names a file that is missing or not a rater's.
        """
        with open_file(path) as file:
            if file.seek(0, os.SEEK_END) > _LARGEST:
                raise FileFormatError(path, "is too large for a saved rater; train a new one")
            file.seek(0)
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    return cls({name: arrays[name] for name in arrays.files})
            # Damaged archives raise nearly anything.
            except Exception as error:
                problem = f"is not a saved rater, train a new one: {error}"
                raise FileFormatError(path, problem) from error

    def _digits(self, patches: Float[np.ndarray, "n 8 8"]) -> Int[np.ndarray, " n"]:
        """The class of each patch, NOTHING included."""
        found = []
        for start in range(0, len(patches), _CHUNK):
            part = _normalised(patches[start : start + _CHUNK])
            padding = ((0, _CHUNK - len(part)), (0, 0), (0, 0))
            logits = _logits(self.parameters, np.pad(part, padding))
            found.append(np.asarray(logits).argmax(-1)[: len(part)])
        return np.concatenate(found) if found else np.zeros(0, np.int64)

    def read(self, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str]) -> list[Reading]:
        """What each picture shows at the places that its caption names. Pictures of 16, 32 or 64
        pixels.

        Raises ValueError for other sizes, for captions outside the grammar, and where there aren't
        as many captions as images."""
        if len(images) != len(captions):
            raise ValueError(f"the rater got {len(images)} images and {len(captions)} captions")
        canvases = _to_canvas(images)
        found = [digit_scenes.places(digit_scenes.parse_caption(c)) for c in captions]
        inks = canvases.max(-1)
        patches = [inks[n][_cell(place)] for n, named in enumerate(found) for place in named]
        patches = np.stack(patches) if patches else np.zeros((0, CELL, CELL), np.float32)
        digits = iter(self._digits(patches).tolist())
        readings = []
        for canvas, ink, named in zip(canvases, inks, found, strict=True):
            marks, elsewhere = [], ink.copy()
            for place in named:
                cell, digit = canvas[_cell(place)], next(digits)
                empty = digit == NOTHING or cell.max() < FAINTEST
                marks.append(Mark(None if empty else digit, _colour(cell)))
                elsewhere[_cell(place)] = 0
            stray = float(elsewhere.sum() / max(float(ink.sum()), 1.0))
            readings.append(Reading(tuple(marks), stray))
        return readings

    def correct(
        self, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str]
    ) -> Bool[np.ndarray, " n"]:
        """Whether each picture shows what its caption says: every digit and colour in its place,
        and at most a quarter of the ink elsewhere (a second digit is more)."""
        readings = self.read(images, captions)
        pairs = zip(readings, captions, strict=True)
        return np.array([r.stray <= STRAY_INK and r.marks == _wanted(c) for r, c in pairs], bool)


def _wanted(caption: str) -> tuple[Mark, ...]:
    return tuple(Mark(t.digit, t.colour) for t in digit_scenes.parse_caption(caption).things)


def accuracy(
    rater: Rater, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str]
) -> dict[str, float]:
    """Shares of correct pictures, by the number of digits that their captions name (`single`,
    `double`, `triple`; only those that occur) and of `all`; and `digits`, the share of single
    digits read as named, whatever their colour.

    Raises ValueError where there is no picture."""
    if not len(captions):
        raise ValueError("accuracy over no pictures is undefined; give at least one")
    readings, wanted = rater.read(images, captions), [_wanted(c) for c in captions]
    counts = np.array([len(w) for w in wanted])
    right = rater.correct(images, captions)
    numbers = {
        name: float(right[counts == n].mean())
        for n, name in enumerate(("single", "double", "triple"), 1)
        if (counts == n).any()
    }
    pairs = [p for r, w in zip(readings, wanted, strict=True) for p in zip(r.marks, w, strict=True)]
    digits = float(np.mean([seen.digit == named.digit for seen, named in pairs]))
    return {**numbers, "all": float(right.mean()), "digits": digits}
