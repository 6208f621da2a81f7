"""Mean and covariance of features, summed part by part: over batches, devices and processes."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

BLOCK = 4096
"""Features that are summed at once, so that 50,000 of 2048 need 64 MB in float64."""


@dataclass(frozen=True)
class Moments:
    """What the Fréchet distance knows of a set of images."""

    count: int
    """Images."""
    mean: Float64[np.ndarray, " d"]
    covariance: Float64[np.ndarray, "d d"]
    """Unbiased, over count - 1."""


class MomentSums:
    """Σ 1, Σ x and Σ x xᵀ in float64, about a pivot that all parts share.

    Sums of parts may be added in any order. Features are float32 numbers of about unit size, so
    that the differences of large sums, from which covariances follow, keep all of float32's digits;
    a `pivot` near the mean saves more, for features far from zero.
    """

    def __init__(self, width: int, pivot: Float[np.ndarray, " d"] | float = 0.0) -> None:
        self.pivot = np.broadcast_to(np.asarray(pivot, np.float64), (width,))
        self.count = 0
        self.sums = np.zeros(width)
        self.products = np.zeros((width, width))

    def add(self, features: Float[np.ndarray, "n d"]) -> None:
        """Adds rows; raises ValueError where one is not finite."""
        if not np.isfinite(features).all():
            raise ValueError("a feature is not finite; the images or the network's weights are bad")
        for start in range(0, len(features), BLOCK):
            part = features[start : start + BLOCK].astype(np.float64) - self.pivot
            self.sums += part.sum(0)
            self.products += part.T @ part
        self.count += len(features)

    def merge(self, other: "MomentSums") -> None:
        """Adds the sums of other images; raises ValueError for another width or pivot."""
        if not np.array_equal(self.pivot, other.pivot):
            raise ValueError("sums about different pivots, or of different widths, cannot be added")
        self.count += other.count
        self.sums += other.sums
        self.products += other.products

    def moments(self) -> Moments:
        """Mean and covariance of all that was added; raises ValueError for fewer than 2 images."""
        if self.count < 2:
            raise ValueError(f"a covariance needs 2 images or more, not {self.count}")
        mean = self.sums / self.count
        products = self.products - self.count * np.outer(mean, mean)
        return Moments(self.count, mean + self.pivot, products / (self.count - 1))


def moments_of(features: Float[np.ndarray, "n d"] | Iterable[Float[np.ndarray, "n d"]]) -> Moments:
    """Mean and covariance of rows, or of the rows of several parts. Raises ValueError as above."""
    parts = [features] if isinstance(features, np.ndarray) else features
    sums: MomentSums | None = None
    for part in parts:
        if sums is None:
            pivot = np.mean(part[:BLOCK], 0, dtype=np.float64) if len(part) else 0.0
            sums = MomentSums(part.shape[1], pivot)
        sums.add(part)
    if sums is None:
        raise ValueError("a covariance needs 2 images or more, not 0")
    return sums.moments()
