"""The Fréchet distance of two Gaussians, which of Inception's features is the FID, and what it
would be of infinitely many images."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

from ldm_jax.evaluation.scores.moments import Moments, moments_of

MIN_PARTS = 5
"""Sizes of samples that the extrapolation to infinitely many is fitted to, at least."""


def frechet_distance(a: Moments, b: Moments) -> float:
    """|μa - μb|² + tr(Σa + Σb - 2 (Σa Σb)^½) (Heusel 2017, equation 6; Dowson and Landau 1982).

    tr (Σa Σb)^½ is the sum of the roots of the eigenvalues of Σa^½ Σb Σa^½, which is symmetric; so
    that nothing becomes complex and nothing is added to the diagonals, whatever the rank.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"features of {a.mean.size} and of {b.mean.size} numbers cannot be compared; both sets "
            "need the same network and layer"
        )
    difference = a.mean - b.mean
    root = _root(a.covariance)
    eigenvalues = np.linalg.eigvalsh(root @ b.covariance @ root)
    overlap = np.sqrt(np.clip(eigenvalues, 0, None)).sum()
    traces = np.trace(a.covariance) + np.trace(b.covariance)
    return float(difference @ difference + traces - 2 * overlap)


def frechet_distance_of(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """`frechet_distance` of the features' moments, without their covariances where there are fewer
    images than numbers in a feature.

    With X = A - μa, Y = B - μb: tr (Σa Σb)^½ is the sum of the singular values of X Yᵀ over
    √((n - 1)(m - 1)).
    """
    if min(len(a), len(b)) >= a.shape[1]:
        return frechet_distance(moments_of(a), moments_of(b))
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance needs 2 images or more, not {min(len(a), len(b))}")
    (mean_a, x), (mean_b, y) = (_centred(features) for features in (a, b))
    difference = mean_a - mean_b
    n, m = len(a) - 1, len(b) - 1
    overlap = np.linalg.svd(x @ y.T, compute_uv=False).sum() / np.sqrt(n * m)
    traces = (x**2).sum() / n + (y**2).sum() / m
    return float(difference @ difference + traces - 2 * overlap)


class Extrapolated(NamedTuple):
    """A line fitted to distances of ever larger samples."""

    value: float
    """At 1 / count = 0."""
    slope: float
    """Of the distance over 1 / count: what too few images add, times their number."""
    counts: tuple[int, ...]
    distances: tuple[float, ...]


def frechet_distance_at_infinity(
    features: Float[np.ndarray, "n d"], reference: Moments, *, parts: int = 15, seed: int = 0
) -> Extrapolated:
    """FID∞: what the distance of infinitely many images would be (Chong and Forsyth 2020).

    The distance of n images is larger than that of infinitely many by a constant over n, to first
    order. A line in 1 / n is fitted to `parts` samples, drawn from `features` without replacement,
    of sizes from a tenth (or 5000 where more than 10,000 are there) to all.

    Raises:
        ValueError: too few images for samples of so many sizes.
    """
    if parts < MIN_PARTS or len(features) < 10 * parts:
        raise ValueError(
            f"{len(features)} images are too few to extrapolate from {parts} samples; it takes "
            f"{MIN_PARTS} samples or more and ten images for each"
        )
    least = 5000 if len(features) > 10_000 else len(features) // 10
    counts = np.linspace(least, len(features), parts).astype(int)
    generator = np.random.default_rng(seed)
    distances = [
        frechet_distance(moments_of(generator.permutation(features)[:count]), reference)
        for count in counts
    ]
    slope, value = np.polyfit(1 / counts, distances, 1)
    return Extrapolated(float(value), float(slope), tuple(counts.tolist()), tuple(distances))


def _root(matrix: Float64[np.ndarray, "d d"]) -> Float64[np.ndarray, "d d"]:
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def _centred(
    features: Float[np.ndarray, "n d"],
) -> tuple[Float64[np.ndarray, " d"], Float64[np.ndarray, "n d"]]:
    mean = features.mean(0, dtype=np.float64)
    return mean, features - mean
