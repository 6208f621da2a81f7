"""The Fréchet distance against its closed forms."""

import numpy as np
import pytest

from ldm_jax.evaluation.scores.frechet import (
    frechet_distance,
    frechet_distance_at_infinity,
    frechet_distance_of,
)
from ldm_jax.evaluation.scores.moments import Moments, moments_of


def diagonal(mean, variances):
    return Moments(1000, np.asarray(mean, np.float64), np.diag(np.asarray(variances, np.float64)))


def test_independent_features_add_up():
    a, b = diagonal([1.0, 2.0, 0.0], [4.0, 1.0, 0.0]), diagonal([0.0, 2.0, 1.0], [1.0, 9.0, 2.0])
    # (μ - ν)² + (σ - τ)² of each
    expected = (1 + 1) + (0 + 4) + (1 + 2)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_rotating_both_sets_changes_nothing():
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(2, 200, 16)) * generator.uniform(0.1, 2, (2, 1, 16))
    rotation = np.linalg.qr(generator.normal(size=(16, 16)))[0]
    rotated = frechet_distance(moments_of(a @ rotation), moments_of(b @ rotation))
    assert rotated == pytest.approx(frechet_distance(moments_of(a), moments_of(b)), rel=1e-10)


@pytest.mark.parametrize("count", [2, 10, 31])
def test_few_images_need_no_covariance(count):
    generator = np.random.default_rng(count)
    a = generator.normal(size=(count, 32)).astype(np.float32)
    b = generator.normal(0.3, 1.5, size=(50, 32)).astype(np.float32)
    expected = frechet_distance(moments_of(a), moments_of(b))
    # Eigenvalues that are zero but for rounding have roots of 1e-8 each.
    assert frechet_distance_of(a, b) == pytest.approx(expected, rel=1e-6)


def test_a_stream_of_gaussian_features_approaches_the_closed_form():
    mean, deviation = np.linspace(-1, 1, 8), np.linspace(0.5, 2, 8)
    exact = float((mean**2).sum() + ((deviation - 1) ** 2).sum())
    reference = diagonal(np.zeros(8), np.ones(8))
    generator = np.random.default_rng(2)
    parts = (generator.normal(mean, deviation, (2000, 8)).astype(np.float32) for _ in range(25))
    # 50,000 images: the standard error of the distance is about 0.04.
    assert frechet_distance(moments_of(parts), reference) == pytest.approx(exact, abs=0.1)


def test_the_extrapolation_takes_away_what_few_images_add():
    generator = np.random.default_rng(3)
    features = generator.normal(size=(2000, 64)).astype(np.float32)
    reference = diagonal(np.zeros(64), np.ones(64))
    found = frechet_distance_at_infinity(features, reference)
    plain = frechet_distance(moments_of(features), reference)
    # Truly 0. A Gaussian's covariance of n samples is off by d(d + 1) / 4n, its mean by d / n.
    assert plain == pytest.approx(64 * 65 / 8000 + 64 / 2000, rel=0.1)
    assert abs(found.value) < 0.1 * plain
    assert found.counts[0] == 200 and found.counts[-1] == 2000
    assert found == frechet_distance_at_infinity(features, reference)
    with pytest.raises(ValueError, match="too few"):
        frechet_distance_at_infinity(features[:100], reference)


def test_other_widths_are_refused():
    with pytest.raises(ValueError, match="same network and layer"):
        frechet_distance(diagonal([0.0], [1.0]), diagonal([0.0, 0.0], [1.0, 1.0]))
