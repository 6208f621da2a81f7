"""Curves as a picture: scales, ticks, and what is drawn where."""

import math

import numpy as np
import pytest

from ldm_jax.images.plot import Curve, Mark, Panel, log_ticks, number, plot, running_mean, ticks


def test_ticks_are_round_numbers():
    np.testing.assert_allclose(ticks(0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1])
    np.testing.assert_allclose(ticks(19.0, 120.0, 5), [20, 40, 60, 80, 100, 120])
    np.testing.assert_allclose(log_ticks(0.03, 1.5), [0.05, 0.1, 0.2, 0.5, 1])
    np.testing.assert_allclose(log_ticks(1e-9, 1.0), [10.0**n for n in range(-9, 1)])
    assert [number(x) for x in (0.0, 0.25, 2e-5, 12345.0)] == ["0", "0.25", "2e-5", "1.2e4"]


def test_a_running_mean_does_not_blunt_a_steep_beginning():
    values = np.array([9.0, 1.0, 1.0, 1.0, 3.0])
    np.testing.assert_allclose(running_mean(values, 3), [9, 11 / 3, 1, 5 / 3, 2])


def rows(picture, colour):
    """The rows in which a colour is, those of the legend aside."""
    close = np.abs(picture.astype(int) - colour).sum(axis=-1) < 60
    return np.flatnonzero(close.any(axis=1))


@pytest.mark.parametrize("middle, log", [(0.1, True), (0.5, False)])
def test_a_scale_is_logarithmic_where_values_differ_much(middle, log):
    red = (200, 0, 0)
    values = [1.0, middle, middle, 0.01 if log else 0.0]
    curve = Curve("a", [1, 2, 3, 4], values, colour=red)
    drawn = rows(plot([Panel("loss", [curve], 0, 0, 400, 300)], 400, 300), red)
    # Of the values between the largest and the least, the level part of the curve has most.
    assert 40 <= drawn.min() < drawn.max() <= 300 - 34
    flat = Curve("a", [2, 3], [middle, middle], colour=(0, 0, 200))
    both = plot([Panel("loss", [curve, flat], 0, 0, 400, 300)], 400, 300)[40:]
    level = rows(both, (0, 0, 200)).mean() + 40
    assert level == pytest.approx((drawn.min() + drawn.max()) / 2, abs=2)


def test_what_is_not_finite_is_left_out_and_nothing_is_no_error():
    empty = Panel("nothing", [Curve("a", [1], [math.nan])], 0, 0, 300, 200)
    assert (plot([empty], 300, 200) < 200).any()
    one = Curve("a", [1, 2], [math.nan, 3.0], colour=(200, 0, 0))
    mark = Mark("here", 2, 3.0)
    picture = plot([Panel("one", [one], 0, 0, 300, 200, marks=[mark])], 300, 200)
    assert picture.shape == (200, 300, 3) and len(rows(picture, (230, 97, 1)))
