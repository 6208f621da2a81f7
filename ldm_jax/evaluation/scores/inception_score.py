"""The Inception score: how sure a classifier is of each image, and how varied they are."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class InceptionScore(NamedTuple):
    """Of several parts of the images."""

    mean: float
    std: float
    """Over the parts."""
    parts: int


def inception_score(logits: Float[np.ndarray, "n classes"], bounds: list[int]) -> InceptionScore:
    """exp E KL(p(y|x) ‖ p(y)) of each part of the images (Salimans 2016, section 4).

    `bounds` are where parts begin and end, from 0 to n; images are taken in their order.

    Raises:
        ValueError: a part without images.
    """
    if len(bounds) < 2 or min(np.diff(bounds)) < 1:
        raise ValueError(f"{len(logits)} images are too few for parts from {bounds}")
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    scores = [
        _score(log_p[start:stop]) for start, stop in zip(bounds, bounds[1:], strict=False)
    ]  # fmt: skip
    return InceptionScore(float(np.mean(scores)), float(np.std(scores)), len(scores))


def equal_parts(count: int, parts: int) -> list[int]:
    """Bounds of so many parts, which differ by one image at most."""
    return [i * count // parts for i in range(parts + 1)]


def blocks(count: int, size: int) -> list[int]:
    """Bounds of parts of `size` images, the last of which may be smaller."""
    return [*range(0, count, size), count]


def _score(log_p: Float[np.ndarray, "n classes"]) -> float:
    p = np.exp(log_p)
    marginal = p.mean(0)
    # A class that no image can have adds nothing.
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - np.log(marginal)), 0.0)
    return float(np.exp(terms.sum(1).mean()))
