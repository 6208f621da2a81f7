"""Every process gives exactly the levels that are asked for, noisiest first, and a final one."""

import jax.numpy as jnp
import numpy as np
import pytest

from ldm_jax.diffusion.parameterization import make_denoiser
from ldm_jax.diffusion.processes import EDM, VE, VP, RectifiedFlow, SubVP
from ldm_jax.diffusion.schedules import NoiseSchedule, zero_terminal_snr
from ldm_jax.sampling.ancestral import DDIM
from ldm_jax.sampling.levels import CONTINUOUS, in_sections, levels, levels_at, levels_of
from ldm_jax.sampling.scan import sample

SCHEDULE = NoiseSchedule.create("scaled_linear", 1000)
ZERO = NoiseSchedule(zero_terminal_snr(SCHEDULE.alpha_bar))
FLOW = RectifiedFlow()
AYS_SD15 = [14.61464, 6.474576, 3.863675, 2.694615, 1.884192, 1.39438, 0.964258, 0.652369,
            0.397746, 0.151523]  # fmt: skip


@pytest.mark.parametrize("process", [VP(), SubVP(), VE(), EDM(), FLOW, RectifiedFlow(shift=3)])
@pytest.mark.parametrize("spacing", CONTINUOUS)
def test_continuous_processes(process, spacing):
    if isinstance(process, RectifiedFlow) and spacing in ("karras", "exponential"):
        with pytest.raises(ValueError, match="this process ends in noise alone; choose 'trailing'"):
            levels(process, 5, spacing, "one")
        return
    for steps in (1, 2, 7, 100):
        got = levels(process, steps, spacing, "one")
        times = np.asarray(got.timestep, np.float64)
        assert times.size == steps + 1 and np.all(np.diff(times) < 0)
        assert times[0] == np.float32(process.t_max)
        np.testing.assert_allclose(got.alpha[:-1], process.alpha_at(times[:-1]), atol=1e-6)
        np.testing.assert_allclose(got.sigma[:-1], process.sigma_at(times[:-1]), rtol=1e-5)
        assert [float(values[-1]) for values in got] == [0, 1, 0, 1]
        if steps > 1 and spacing in ("karras", "exponential"):
            low = process.sigma_at(process.t_min) / process.alpha_at(process.t_min)
            np.testing.assert_allclose(got.sigma[-2] / got.alpha[-2], low, rtol=1e-4)
    with pytest.raises(ValueError, match="'leading', which only schedules of discrete timesteps"):
        levels(process, 5, "leading", "one")


def test_shifted_times_of_rectified_flow():
    """Esser 2024, eq. 23, of evenly spaced ones."""
    t = np.array([1, 0.75, 0.5, 0.25])
    got = levels(RectifiedFlow(shift=3), 4, "trailing", "one")
    np.testing.assert_allclose(got.timestep[:-1], 3 * t / (1 + 2 * t), rtol=1e-6)
    got = levels(FLOW, 3, "linspace", "first")
    np.testing.assert_allclose(got.timestep, [1, 0.5005, 0.001, 0.001], rtol=1e-6)


def test_exponential_levels():
    got = levels(SCHEDULE, 12, "exponential", "one")
    ratios = np.log(np.asarray(got.sigma[:-1] / got.alpha[:-1], np.float64))
    np.testing.assert_allclose(ratios[[0, -1]], np.log(SCHEDULE.noise_to_signal[[-1, 0]]))
    np.testing.assert_allclose(np.diff(ratios, n=2), 0, atol=1e-5)  # float32 levels


def test_align_your_steps():
    """The published sigmas are those of the published timesteps, and end at the schedule's."""
    for end in ("one", "first"):
        got = levels(SCHEDULE, 10, "ays_sd15", end)
        np.testing.assert_allclose(got.sigma[:-1] / got.alpha[:-1], AYS_SD15, rtol=1e-4)
    known = np.array([*AYS_SD15, SCHEDULE.noise_to_signal[0]])
    for steps in (1, 5, 20, 1000):
        got = levels(SCHEDULE, steps, "ays_sd15", "one")
        places = np.linspace(0, 10, steps + 1)[:-1]
        expected = np.exp(np.interp(places, np.arange(11), np.log(known)))
        # Between timesteps sigma / alpha is linear, its logarithm 1.5% less at the most.
        np.testing.assert_allclose(got.sigma[:-1] / got.alpha[:-1], expected, rtol=0.016)
    for schedule, why in ((NoiseSchedule.create("cosine", 500), "this has 500"),
                          (ZERO, "ends in noise alone")):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            levels(schedule, 10, "ays_sdxl")


def test_lists_of_sigmas():
    got = levels_of(SCHEDULE, np.array([*AYS_SD15, 0]))
    assert got.timestep.size == 11 and got.final.tolist() == [False] * 10 + [True]
    np.testing.assert_allclose(got.sigma[:-1] / got.alpha[:-1], AYS_SD15, rtol=1e-4)
    np.testing.assert_allclose(got.timestep[:2], [999, 850], atol=0.01)
    np.testing.assert_allclose(levels_of(EDM(), np.array([80.0, 1, 0.1])).sigma, [80, 1, 0.1, 0])
    for sigmas in ([], [0.0], [1, 2], [15.0, 1], [1.0, 0.001]):
        with pytest.raises(ValueError, match=r"must fall strictly and lie in 0.029167\.\.14.615"):
            levels_of(SCHEDULE, np.array(sigmas))


def test_sections():
    np.testing.assert_array_equal(
        in_sections(SCHEDULE, (3, 1), "one").timestep, [500, 499, 250, 0, 0]
    )
    with pytest.raises(ValueError, match=r"sections are \(3, 1\), but only schedules of discrete"):
        in_sections(VP(), (3, 1))


@pytest.mark.parametrize("process", [ZERO, FLOW])
def test_sampling_starts_where_nothing_is_left_of_the_data(process):
    """A network that knows the data, one point, reaches it from an alpha of 0."""
    got = levels(process, 7, "trailing", "one")
    assert (got.alpha[0], got.sigma[0]) == (0, 1)
    point = jnp.full((2, 3), 0.7)
    for kind in ("x0", "v", "velocity", "edm"):

        def network(x, t, kind=kind):
            time = t / process.network_time(process.t_max) * process.t_max
            alpha, sigma = (at(time).reshape(2, 1) for at in (process.alpha_at, process.sigma_at))
            eps = (x - alpha * point) / sigma
            outputs = {"x0": point, "v": alpha * eps - sigma * point, "velocity": eps - point}
            if kind == "edm":  # for sigma_data 1, by the input that it is told
                std = jnp.sqrt(alpha**2 + sigma**2)
                eps = (x * std - alpha * point) / sigma
                return (sigma * point - alpha * eps) / std
            return outputs[kind]

        denoise = make_denoiser(network, kind, process)
        x = sample(DDIM(), denoise, jnp.ones((2, 3)), got).x
        np.testing.assert_allclose(x, point, atol=1e-5)


def test_karras_levels():
    got = levels(SCHEDULE, 10, "karras", "one")
    ratios = np.asarray(got.sigma, np.float64) / np.asarray(got.alpha, np.float64)
    ends = SCHEDULE.noise_to_signal[[-1, 0]]
    np.testing.assert_allclose(ratios[[0, -2]], ends, rtol=1e-6)
    np.testing.assert_allclose(np.diff(ratios[:-1] ** (1 / 7), n=2), 0, atol=1e-6)
    assert (ratios[-1], got.alpha[-1]) == (0, 1)
    np.testing.assert_allclose(got.timestep[np.array([0, -2])], [999, 0], atol=1e-6)
    inner = np.asarray(got.timestep[1:-2], np.float64)
    low = np.log(SCHEDULE.noise_to_signal[np.floor(inner).astype(int)])
    high = np.log(SCHEDULE.noise_to_signal[np.ceil(inner).astype(int)])
    np.testing.assert_allclose(
        np.log(ratios[1:-2]), low + (high - low) * (inner % 1), rtol=1e-4, atol=1e-5
    )
    assert list(levels(SCHEDULE, 1, "karras", "one").timestep) == [999, 0]
    with pytest.raises(ValueError, match="'karras' ends in sigma 0, so final_alpha_bar must be"):
        levels(SCHEDULE, 10, "karras")
    with pytest.raises(ValueError, match=r"steps is 0; it must lie in 1\.\.1000"):
        levels(SCHEDULE, 0, "karras", "one")


def test_levels_between_timesteps():
    got = levels_at(SCHEDULE, np.array([500.5, 20.0, 0.25]), "one")
    ratio = SCHEDULE.noise_to_signal
    expected = [ratio[500:502].mean(), ratio[20], 0.75 * ratio[0] + 0.25 * ratio[1], 0]
    np.testing.assert_allclose(got.sigma / got.alpha, expected, rtol=1e-6)
    np.testing.assert_allclose(got.sigma**2 + got.alpha**2, 1, rtol=1e-6)
    np.testing.assert_array_equal(got.timestep, [500.5, 20, 0.25, 0])
    for times in ([], [5, 5], [1, 2], [1000, 1], [1, -1]):
        with pytest.raises(ValueError, match="must fall strictly and lie in 0..999"):
            levels_at(SCHEDULE, np.array(times))


@pytest.mark.parametrize("flow", [RectifiedFlow(shift=0.5), RectifiedFlow(shift=3, t_max=0.98)])
def test_shifted_flows_keep_their_ends(flow):
    times = np.asarray(levels(flow, 5, "linspace", "one").timestep)
    np.testing.assert_allclose(times[[0, -2]], [flow.t_max, flow.t_min], rtol=1e-6)
    assert levels(flow, 5, "trailing", "one").timestep[0] == np.float32(flow.t_max)
    np.testing.assert_allclose(flow.time_at(np.array([0.0, 1.0])), [flow.t_min, flow.t_max])
