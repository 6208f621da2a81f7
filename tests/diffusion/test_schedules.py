"""Schedules agree with the published ones; every spacing gives the steps it was asked for."""

import numpy as np
import pytest

from ldm_jax.diffusion.schedules import NoiseSchedule, betas
from ldm_jax.diffusion.spacing import spacing

EXACT = ["leading", "trailing", "linspace", "quad"]


def test_stable_diffusion_schedule():
    alpha_bar = NoiseSchedule.create("scaled_linear", 1000, 0.00085, 0.012).alpha_bar
    assert alpha_bar.dtype == np.float64
    np.testing.assert_allclose(
        alpha_bar[[0, 1, 500, 981, 999]],
        [0.99915, 0.998296, 0.276333, 0.005776, 0.004660],
        atol=5e-7,
    )


def test_latent_diffusion_schedule():
    alpha_bar = NoiseSchedule.create("scaled_linear", 1000, 0.0015, 0.0195).alpha_bar
    assert alpha_bar[999] == pytest.approx(1.42e-4, rel=5e-3)


def test_linear_schedule_of_ddpm():
    np.testing.assert_allclose(betas("linear", 3, 0.1, 0.3), [0.1, 0.2, 0.3])
    assert NoiseSchedule.create("linear", 1000, 1e-4, 0.02).alpha_bar[-1] == pytest.approx(
        4.036e-5, rel=1e-3
    )


def test_cosine_schedule():
    steps = betas("cosine", 1000)
    assert steps.max() == 0.999
    schedule = NoiseSchedule.create("cosine", 1000)
    t = np.array([0, 250, 499, 900]) + 1
    f = np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    expected = f / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(schedule.alpha_bar[t - 1], expected, rtol=1e-9)


def test_alpha_sigma_and_snr():
    schedule = NoiseSchedule.create("scaled_linear", 10)
    np.testing.assert_allclose(schedule.alpha**2 + schedule.sigma**2, 1, rtol=1e-15)
    np.testing.assert_allclose(schedule.snr, (schedule.alpha / schedule.sigma) ** 2)
    assert schedule.num_timesteps == 10


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


def test_bad_schedules_are_named():
    with pytest.raises(ValueError, match="num_timesteps is 0"):
        betas("linear", 0)
    with pytest.raises(ValueError, match=r"start 0\.5 and end 0\.1"):
        betas("linear", 10, 0.5, 0.1)
    with pytest.raises(ValueError, match=r"alpha_bar\[1\] is 0.0"):
        NoiseSchedule(np.array([0.5, 0.0, 0.0]))
    with pytest.raises(ValueError, match="must fall with t"):
        NoiseSchedule(np.array([0.5, 0.6]))


def test_schedule_cannot_be_changed():
    schedule = NoiseSchedule.create("linear", 10)
    with pytest.raises(ValueError, match="read-only"):
        schedule.alpha_bar[0] = 0.5
