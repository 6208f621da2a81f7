"""Extractors that see a few numbers of an image instead of running Inception."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

WIDTH = 12


@dataclass
class TinyExtractor:
    """Means of strips of an image, and logits of them."""

    name: str
    taps: tuple[str, ...] = ("2048", "spatial", "logits_unbiased")
    weights_sha256: str = "0" * 64
    seen: list[int] = field(default_factory=list)
    """How many images each call was given."""

    def describe(self) -> dict[str, Any]:
        return {
            "extractor": self.name, "features": list(self.taps),
            "weights_sha256": self.weights_sha256, "weights_known": False,
        }  # fmt: skip

    def features(self, images: np.ndarray) -> dict[str, np.ndarray]:
        self.seen.append(len(images))
        strips = np.array_split(images.astype(np.float64) / 255, WIDTH, axis=2)
        means = np.stack([strip.mean((1, 2, 3)) for strip in strips], 1).astype(np.float32)
        found = {
            "2048": means,
            "spatial": means**2,
            "logits_unbiased": 9 * means,
            "fc2_relu": means,
        }
        return {tap: found[tap] for tap in self.taps}


def read_tiny(mode: str, weights: Any = None, *, taps=None, batch_size: int = 1) -> TinyExtractor:
    """In place of `read_extractor`; the file's name stands for its content."""
    own = TinyExtractor(mode) if taps is None else TinyExtractor(mode, taps)
    own.weights_sha256 = str(weights).ljust(64, "0")
    return own
