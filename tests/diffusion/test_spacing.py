"""Every spacing gives the steps it was asked for; published lists come out as published."""

from pathlib import Path

import numpy as np
import pytest

from ldm_jax.diffusion.spacing import sections, spacing

EXACT = ["leading", "trailing", "linspace", "quad"]
GOLDEN = Path(__file__).parents[1] / "parity/golden/processes.npz"


@pytest.mark.parametrize("kind", EXACT)
def test_every_number_of_steps_is_kept(kind):
    for total in (1, 2, 7, 1000):
        for steps in range(1, total + 1):
            times = spacing(kind, total, steps)
            assert times.shape == (steps,), (kind, total, steps)
            assert times[0] >= 0 and times[-1] <= total - 1, (kind, total, steps)
            assert np.all(np.diff(times) > 0), (kind, total, steps)


def test_known_spacings():
    np.testing.assert_array_equal(spacing("leading", 1000, 50), np.arange(1, 1000, 20))
    np.testing.assert_array_equal(spacing("trailing", 1000, 4), [249, 499, 749, 999])
    np.testing.assert_array_equal(spacing("linspace", 1000, 4), [0, 333, 666, 999])
    assert list(spacing("quad", 1000, 10)[[0, 1, -1]]) == [1, 10, 801]
    assert spacing("leading", 1000, 501)[-1] == 999


@pytest.mark.parametrize(("steps", "length"), [(50, 50), (30, 31), (400, 500)])
def test_compvis_spacing_has_the_length_of_the_original(steps, length):
    times = spacing("compvis", 1000, steps)
    np.testing.assert_array_equal(times, np.arange(0, 1000, 1000 // steps) + 1)
    assert len(times) == length


def test_compvis_spacing_refuses_exactly_what_breaks_the_original():
    broken = set()
    for steps in range(1, 1000):
        try:
            spacing("compvis", 1000, steps)
        except ValueError as error:
            assert "leading" in str(error)
            broken.add(steps)
    expected = {3, 9, 27, 36, 37, *range(101, 112), *range(251, 334), *range(501, 1000)}
    assert broken == expected


@pytest.mark.parametrize("steps", [0, 1001])
def test_spacing_names_a_bad_number_of_steps(steps):
    with pytest.raises(ValueError, match=rf"steps is {steps}.*1\.\.1000"):
        spacing("leading", 1000, steps)


def test_respacing_of_guided_diffusion():
    golden = np.load(GOLDEN)
    seen = 0
    for name, expected in golden.items():
        kind, _, rest = name.partition("/")
        counts, _, total = rest.partition("/")
        if kind == "sections":
            found = sections(int(total or 1000), tuple(map(int, counts.split(","))))
        elif kind == "ddim":
            found = spacing("ddim_uniform", 1000, int(counts))
        else:
            continue
        np.testing.assert_array_equal(found, expected, err_msg=name)
        seen += 1
    assert seen == 12
    refused = []
    for steps in range(1, 1001):
        try:
            assert spacing("ddim_uniform", 1000, steps).size == steps
        except ValueError as error:
            assert "no whole stride" in str(error)
            refused.append(steps)
    np.testing.assert_array_equal(refused, golden["ddim_refused"])


@pytest.mark.parametrize("counts", [(), (0,), (3, -1), (6, 5)])
def test_bad_sections_are_named(counts):
    with pytest.raises(ValueError, match="sections are "):
        sections(10, counts)
