"""Distances by kernels against their sums over pairs."""

import numpy as np
import pytest

from ldm_jax.evaluation.scores import kernel_distance as kernels


def features(seed, count, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (count, 6)).astype(np.float32)


def test_a_subset_of_all_is_the_sum_over_pairs():
    x, y = features(0, 9), features(1, 9, 0.5)
    k = lambda a, b: (np.dot(a.astype(float), b.astype(float)) / 6 + 1) ** 3  # noqa: E731
    own = sum(k(s[i], s[j]) for s in (x, y) for i in range(9) for j in range(9) if i != j) / 72
    expected = own - 2 * np.mean([[k(a, b) for b in y] for a in x])
    found = kernels.kernel_distance(x, y, np.random.default_rng(0), subsets=2, subset_size=9)
    assert found.mean == pytest.approx(expected, rel=1e-12)
    assert found.std == pytest.approx(0, abs=1e-12) and found.subset_size == 9


def test_it_is_unbiased():
    values = [
        kernels.kernel_distance(
            features(seed, 50), features(seed + 1000, 50), np.random.default_rng(0),
            subsets=1, subset_size=50,
        ).mean
        for seed in range(100)
    ]  # fmt: skip
    assert abs(np.mean(values)) < 3 * np.std(values) / 10
    assert min(values) < 0


def test_fewer_images_than_a_subset_are_refused():
    with pytest.raises(ValueError, match="subset of 1000 images cannot be drawn from 9"):
        kernels.kernel_distance(features(0, 9), features(1, 2000), np.random.default_rng(0))


def test_cmmd_is_the_sum_over_pairs(monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", 7)
    x, y = (
        s / np.linalg.norm(s, axis=1, keepdims=True) for s in (features(0, 20), features(1, 15))
    )

    def mean(a, b):
        square = ((a[:, None].astype(float) - b[None].astype(float)) ** 2).sum(-1)
        return np.exp(-square / 200).mean()

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert kernels.cmmd(x, y) == pytest.approx(expected, rel=1e-9)
    assert kernels.cmmd(x, x) == pytest.approx(0, abs=1e-10)
