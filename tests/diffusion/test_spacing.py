"""Every spacing gives the steps it was asked for; published lists come out as published."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from ldm_jax.diffusion.spacing import Grid, sections, spacing

EXACT = ["leading", "trailing", "linspace", "quad"]
GOLDEN = Path(__file__).parents[1] / "parity/golden/processes.npz"


@pytest.mark.parametrize("grid", get_args(Grid))
@pytest.mark.parametrize("kind", EXACT)
def test_every_number_of_steps_is_kept(kind, grid):
    for total in (1, 2, 7, 1000):
        for steps in range(1, total + 1):
            for offset in {0, min(1, total - 1)}:
                times, case = spacing(kind, total, steps, grid, offset), (total, steps, offset)
                assert times.shape == (steps,), case
                assert times[0] >= 0 and times[-1] <= total - 1, case
                assert np.all(np.diff(times) > 0), case


def test_known_spacings():
    np.testing.assert_array_equal(spacing("leading", 1000, 50), np.arange(1, 1000, 20))
    np.testing.assert_array_equal(spacing("leading", 1000, 30), np.arange(1, 959, 33))
    np.testing.assert_array_equal(spacing("leading", 1000, 30, offset=0), np.arange(0, 958, 33))
    np.testing.assert_array_equal(spacing("leading", 1000, 20, "intervals"), np.arange(48, 942, 47))
    np.testing.assert_array_equal(spacing("leading", 1000, 1000), np.arange(1000))
    np.testing.assert_array_equal(spacing("trailing", 1000, 4), [249, 499, 749, 999])
    np.testing.assert_array_equal(spacing("linspace", 1000, 3), [0, 500, 999])
    np.testing.assert_array_equal(spacing("linspace", 1000, 3, "levels"), [0, 499.5, 999])
    np.testing.assert_array_equal(spacing("linspace", 1000, 3, "intervals"), [333, 666, 999])
    assert list(spacing("quad", 1000, 10)[[0, 1, -1]]) == [1, 10, 801]


def test_the_originals_list():
    """Its length is not always what was asked for, and some lists leave the schedule."""
    broken = set()
    for steps in range(1, 1001):
        try:
            times = spacing("ddim_uniform", 1000, steps)
        except ValueError as error:
            assert "leading" in str(error)
            broken.add(steps)
            continue
        np.testing.assert_array_equal(times, list(range(1, 1001, 1000 // steps)))
        # Where it is as long as was asked, it is "leading".
        leading = spacing("leading", 1000, steps)
        np.testing.assert_array_equal(times[:steps], leading)
    assert broken == {3, 9, 27, 36, 37, *range(101, 112), *range(251, 334), *range(501, 1001)}
    assert [spacing("ddim_uniform", 1000, steps).size for steps in (50, 30, 400)] == [50, 31, 500]


@pytest.mark.parametrize("steps", [0, 1001])
def test_spacing_names_a_bad_number_of_steps(steps):
    with pytest.raises(ValueError, match=rf"steps is {steps}.*1\.\.1000"):
        spacing("leading", 1000, steps)


def test_bad_offsets_are_named():
    with pytest.raises(ValueError, match=r"offset is 7; it must lie in 0\.\.6"):
        spacing("leading", 7, 2, offset=7)


def test_respacing_of_guided_diffusion():
    golden = np.load(GOLDEN)
    seen = 0
    for name, expected in golden.items():
        kind, _, rest = name.partition("/")
        counts, _, total = rest.partition("/")
        if kind == "sections":
            found = sections(int(total or 1000), tuple(map(int, counts.split(","))))
        elif kind == "ddim":
            found = spacing("guided_uniform", 1000, int(counts))
        else:
            continue
        np.testing.assert_array_equal(found, expected, err_msg=name)
        seen += 1
    assert seen == 12
    refused = []
    for steps in range(1, 1001):
        try:
            assert spacing("guided_uniform", 1000, steps).size == steps
        except ValueError as error:
            assert "no whole stride" in str(error)
            refused.append(steps)
    np.testing.assert_array_equal(refused, golden["ddim_refused"])


@pytest.mark.parametrize("counts", [(), (0,), (3, -1), (6, 5)])
def test_bad_sections_are_named(counts):
    with pytest.raises(ValueError, match="sections are "):
        sections(10, counts)
