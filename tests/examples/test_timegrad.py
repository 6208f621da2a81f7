"""The forecasting example: its exact answers are exact, and it runs from end to end."""

import json

import jax
import numpy as np
import pytest

from examples import timegrad


def test_the_exact_future_is_that_of_the_series():
    series, times = timegrad.draw_series(20_000, 2 + timegrad.FUTURE, seed=0)
    exact = timegrad.exact_future(series[:, 1], times[:, 1])
    off = series[:, 2:] - exact.mean
    # A standard error is 0.005 of a deviation of 0.6.
    np.testing.assert_allclose(off.mean(0), 0, atol=0.02)
    for step in (0, 5, timegrad.FUTURE - 1):
        np.testing.assert_allclose(
            np.cov(off[:, step].T), exact.covariance[step], rtol=0.06, atol=0.003
        )


def test_crps_of_samples_approaches_that_of_their_distribution():
    generator = np.random.default_rng(0)
    truth, mean = generator.normal(size=50), generator.normal(size=50)
    samples = generator.normal(mean, 0.7, (4000, 50))
    expected = timegrad.crps_of_gaussian(mean, 0.7 * np.ones(50), truth)
    assert timegrad.crps_of_samples(samples, truth) == pytest.approx(expected, rel=0.01)
    # Of a perfect forecast of a standard normal: 1 / sqrt(pi) on average.
    many = generator.normal(size=200_000)
    score = timegrad.crps_of_gaussian(np.zeros(1), np.ones(1), many)
    assert score == pytest.approx(1 / np.sqrt(np.pi), rel=0.01)


@pytest.fixture
def usual_promotion():
    """Optax mixes integers and floats in its schedules."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def test_from_end_to_end(usual_promotion, tmp_path, capsys):
    options = ["--steps=2", "--series=3", "--drawings=4", f"--out={tmp_path}"]
    found = timegrad.main(options)
    assert json.loads((tmp_path / "scores.json").read_text()) == found
    assert found["crps_exact"] < found["crps_without_past"] < found["crps"]
    assert (tmp_path / "forecast.png").stat().st_size > 1000
