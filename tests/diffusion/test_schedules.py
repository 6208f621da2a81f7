"""Schedules agree with the published ones."""

from pathlib import Path

import numpy as np
import pytest

from ldm_jax.diffusion.schedules import (
    NoiseSchedule,
    betas,
    shifted,
    sigmoid_alpha_bar,
    zero_terminal_snr,
)

GOLDEN = Path(__file__).parents[1] / "parity/golden/processes.npz"


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


def test_betas_are_those_of_guided_diffusion():
    golden = np.load(GOLDEN)
    np.testing.assert_allclose(
        betas("linear", 1000, 1e-4, 0.02), golden["betas/linear"], rtol=1e-12
    )
    np.testing.assert_allclose(betas("cosine", 1000), golden["betas/cosine"], rtol=1e-9)


def test_sqrt_and_sigmoid_schedules():
    u = np.arange(1, 2001) / 2000
    found = NoiseSchedule.create("sqrt", 2000).alpha_bar
    first = 1 - np.sqrt(1e-4)
    np.testing.assert_allclose(found[:-1], (1 - np.sqrt(u[:-1] + 1e-4)) / first, rtol=1e-9)
    assert 1 - found[-1] / found[-2] == pytest.approx(0.999)  # where the formula passes 0
    found = NoiseSchedule.create("sigmoid", 2000).alpha_bar
    expected = (np.tanh(1.5) - np.tanh(3 * u - 1.5)) / (2 * np.tanh(1.5))
    np.testing.assert_allclose(found[:-1], expected[:-1], rtol=1e-9)
    steep = sigmoid_alpha_bar(np.array([0, 0.5, 0.75, 1]), 0, 3, 0.3)
    assert steep[[0, -1]].tolist() == [1, 0] and np.all(np.diff(steep) < 0)
    logistic = 1 / (1 + np.exp(-np.array([0, 1.5, 3]) / 0.3))
    assert steep[1] == pytest.approx((logistic[2] - logistic[1]) / (logistic[2] - logistic[0]))
    noise = betas("sigmoid_betas", 1001, 0.1, 0.3)
    np.testing.assert_allclose(noise[[0, 500, -1]], [0.1 + 0.2 / (1 + np.exp(6)), 0.2,
                                                     0.3 - 0.2 / (1 + np.exp(6))])  # fmt: skip


def test_zero_terminal_snr():
    """Lin 2024, algorithm 1: the root moves in a straight line, its first value stays."""
    schedule = NoiseSchedule.create("scaled_linear", 1000)
    rescaled = NoiseSchedule(zero_terminal_snr(schedule.alpha_bar))
    assert rescaled.ends_in_noise and not schedule.ends_in_noise
    assert rescaled.alpha[-1] == 0 and rescaled.sigma[-1] == 1 and rescaled.snr[-1] == 0
    assert rescaled.noise_to_signal[-1] == np.inf
    assert rescaled.alpha[0] == pytest.approx(schedule.alpha[0], rel=1e-14)
    slope = np.diff(rescaled.alpha) / np.diff(schedule.alpha)
    np.testing.assert_allclose(slope, slope[0], rtol=1e-6)
    ratios = rescaled.noise_to_signal_at(np.array([998.0, 998.5, 999.0]))
    assert ratios[0] == rescaled.noise_to_signal[998] and ratios[2] == np.inf
    assert ratios[0] < ratios[1] < np.inf
    with pytest.raises(ValueError, match="2 timesteps or more"):
        zero_terminal_snr(np.array([0.5]))


def test_shift_moves_log_snr():
    """Hoogeboom 2023, eq. 3: pictures of side 256, a schedule for 64."""
    schedule = NoiseSchedule.create("cosine", 100)
    moved = NoiseSchedule(shifted(schedule.alpha_bar, 256 / 64))
    np.testing.assert_allclose(np.log(moved.snr), np.log(schedule.snr) + 2 * np.log(64 / 256))
    with pytest.raises(ValueError, match="shift is 0; it must be greater"):
        shifted(schedule.alpha_bar, 0)
