"""Mean and covariance do not depend on how the images were cut into parts."""

import numpy as np
import pytest

from ldm_jax.evaluation.scores.moments import MomentSums, moments_of

RTOL = 1e-9


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    # Inception's features are a half on average; an offset makes cancellation show.
    return generator.normal(3.0, 0.1, (700, 12)).astype(np.float32)


def test_they_are_mean_and_unbiased_covariance(features):
    found = moments_of(features)
    assert found.count == 700
    np.testing.assert_allclose(found.mean, features.mean(0, dtype=np.float64), rtol=1e-12)
    expected = np.cov(features.astype(np.float64), rowvar=False)
    np.testing.assert_allclose(found.covariance, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("cuts", [[1], [100, 101, 650], list(range(7, 700, 7))])
def test_order_and_parts_change_nothing(features, cuts):
    whole = moments_of(features)
    parts = []
    for rows in np.split(features, cuts)[::-1]:
        sums = MomentSums(12)
        sums.add(rows)
        parts.append(sums)
    while len(parts) > 1:
        parts[0].merge(parts.pop())
    merged = parts[0].moments()
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=RTOL)
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=RTOL, atol=1e-11)
    streamed = moments_of(iter(np.split(features, cuts)))
    np.testing.assert_allclose(streamed.covariance, whole.covariance, rtol=RTOL, atol=1e-11)


def test_what_has_no_moments_is_refused(features):
    with pytest.raises(ValueError, match="2 images or more, not 1"):
        moments_of(features[:1])
    with pytest.raises(ValueError, match="2 images or more, not 0"):
        moments_of(iter(()))
    with pytest.raises(ValueError, match="not finite"):
        moments_of(np.array([[1.0, np.nan]], np.float32))
    with pytest.raises(ValueError, match="different pivots"):
        MomentSums(3).merge(MomentSums(3, 1.0))
