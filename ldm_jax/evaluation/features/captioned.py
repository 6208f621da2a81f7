"""Numbers about images and their captions, one image at a time: CLIP's cosine, and what the rater
of DigitScenes reads."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ldm_jax.data.digit_scenes import parse_caption
from ldm_jax.evaluation.features.clip import ClipEmbedder
from ldm_jax.evaluation.provenance import sha256_of
from ldm_jax.evaluation.rater import Rater, train_rater

PREFIXES = {"clipscore": "A photo depicts ", "torchmetrics": ""}
"""What each program puts before a caption (clipscore: Hessel 2021, section 3)."""


@dataclass(frozen=True)
class Similarity:
    """The cosine of an image's embedding and its caption's."""

    name: str
    """Of PREFIXES."""
    embedder: ClipEmbedder

    def describe(self) -> dict[str, Any]:
        """All that the numbers depend on but images and captions."""
        prefix = PREFIXES[self.name]
        return self.embedder.describe() | {"extractor": self.name, "prefix": prefix}

    def captioned_features(
        self, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str]
    ) -> dict[str, Float32[np.ndarray, "n 1"]]:
        """`cosine`, from -1 to 1."""
        texts = self.embedder.texts([PREFIXES[self.name] + caption for caption in captions])
        pairs = self.embedder.images(images) * texts
        return {"cosine": pairs.sum(1, keepdims=True)}


@dataclass(frozen=True)
class SceneMarks:
    """What the rater reads in DigitScenes."""

    rater: Rater
    name: str = "digit-scenes"

    def describe(self) -> dict[str, Any]:
        """All that the numbers depend on but images and captions."""
        weights = sha256_of(*(array for _, array in sorted(self.rater.parameters.items())))
        return {
            "extractor": self.name, "network": "rater", "weights_sha256": weights,
            "weights_known": True,
        }  # fmt: skip

    def captioned_features(
        self, images: UInt8[np.ndarray, "n h w 3"], captions: Sequence[str]
    ) -> dict[str, Float32[np.ndarray, "n 1"]]:
        """`right`, whether all of the caption is seen and nothing else; `places`, the share of its
        places whose digit and colour are right."""
        places = []
        for reading, caption in zip(self.rater.read(images, captions), captions, strict=True):
            wanted = parse_caption(caption).things
            seen = zip(reading.marks, wanted, strict=True)
            places.append(
                np.mean([(m.digit, m.colour) == (w.digit, w.colour) for m, w in seen])
            )  # fmt: skip
        right = self.rater.correct(images, captions)
        columns = {"right": right, "places": np.array(places)}
        return {name: np.float32(values)[:, None] for name, values in columns.items()}


def read_scene_marks(path: Path | None) -> SceneMarks:
    """With the rater of a file, or one that is trained now, which takes a minute.

    Raises FileFormatError as `Rater.load`.
    """
    return SceneMarks(train_rater() if path is None else Rater.load(path))
