"""Distances of two sets of features by kernels: KID and CMMD."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64

SUBSETS = 100
SUBSET_SIZE = 1000
CMMD_BANDWIDTH = 10.0
CMMD_SCALE = 1000.0
BLOCK = 2048
"""Rows of a kernel that are summed at once."""

Rows = Float64[np.ndarray, "_ d"]
Chooser = np.random.RandomState | np.random.Generator


class KernelDistance(NamedTuple):
    """Of subsets of both sets."""

    mean: float
    std: float
    """Over subsets."""
    subset_size: int


def kernel_distance(
    generated: Float[np.ndarray, "n d"],
    real: Float[np.ndarray, "m d"],
    chooser: Chooser,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    real_first: bool = False,
) -> KernelDistance:
    """KID: the unbiased squared MMD under (x·y / d + 1)³, mean over subsets (Bińkowski 2018, 3).

    The diagonals of both sets' own kernels are left out, so that it may fall below zero. `chooser`
    draws each subset of `generated`, then that of `real` (with `real_first` the other way).

    Raises:
        ValueError: fewer images than `subset_size`.
    """
    fewest = min(len(generated), len(real))
    if fewest < subset_size:
        raise ValueError(
            f"a subset of {subset_size} images cannot be drawn from {fewest}; take more images, or "
            "say a smaller subset, whose result others cannot be compared with"
        )
    values = []
    for _ in range(subsets):
        sets = (real, generated) if real_first else (generated, real)
        a, b = (one[chooser.choice(len(one), subset_size, replace=False)] for one in sets)
        values.append(_unbiased(a.astype(np.float64), b.astype(np.float64)))
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subset_size)


def cmmd(generated: Float[np.ndarray, "n d"], real: Float[np.ndarray, "m d"]) -> float:
    """CMMD: 1000 times the squared MMD of unit vectors under exp(-|x - y|² / (2 · 10²)), with the
    diagonals (Jayasumana 2024, 4).

    Every kernel value is above 0.98, so that sums are taken in float64, and of k - 1.
    """
    gamma = 1 / (2 * CMMD_BANDWIDTH**2)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        square = (x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T
        return np.expm1(-gamma * np.clip(square, 0, None))

    x, y = generated.astype(np.float64), real.astype(np.float64)
    own = _mean(kernel, x, x) + _mean(kernel, y, y)
    return float(CMMD_SCALE * (own - 2 * _mean(kernel, x, y)))


def _cubic(x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "m d"]) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _unbiased(x: Float64[np.ndarray, "n d"], y: Float64[np.ndarray, "n d"]) -> float:
    n = len(x)
    own = sum(kernel.sum() - np.trace(kernel) for kernel in (_cubic(x, x), _cubic(y, y)))
    return own / (n * (n - 1)) - 2 * _cubic(x, y).mean()


def _mean(kernel: Callable[[Rows, Rows], np.ndarray], x: Rows, y: Rows) -> float:
    parts = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
    return sum(kernel(part, y).sum() for part in parts) / (len(x) * len(y))
