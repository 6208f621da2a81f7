"""Marginals, equation and inverse of every process agree, on the host and in programs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.core.typing import Process
from ldm_jax.diffusion.processes import EDM, VE, VP, RectifiedFlow, SubVP
from ldm_jax.diffusion.schedules import NoiseSchedule, zero_terminal_snr

GOLDEN = Path(__file__).parents[1] / "parity/golden/processes.npz"
STEPS = NoiseSchedule.create("scaled_linear", 1000)
PROCESSES = {
    "vp": VP(),
    "sub_vp": SubVP(),
    "ve": VE(),
    "edm": EDM(),
    "flow": RectifiedFlow(shift=3),
    "discrete": STEPS,
    "zero snr": NoiseSchedule(zero_terminal_snr(STEPS.alpha_bar)),
    "sqrt": NoiseSchedule.create("sqrt", 20),
}
every = pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
METHODS = ("alpha_at", "sigma_at", "drift_at", "diffusion_at", "network_time")


def inner(process: Process, share: np.ndarray) -> np.ndarray:
    """Times away from the ends, and from the timesteps, where discrete slopes change."""
    times = process.t_min + (process.t_max - process.t_min) * (0.001 + 0.997 * share)
    return np.floor(times) + 0.5 if isinstance(process, NoiseSchedule) else times


@every
@settings(max_examples=12, deadline=None)
@given(share=st.floats(0, 1))
def test_the_equation_has_these_marginals(process, share):
    """f = d log alpha / dt and g^2 = d sigma^2 / dt - 2 f sigma^2, by central differences."""
    t = inner(process, np.array([share]))
    h = 1e-5 * min(1.0, float(t[0]))
    log_alpha = [np.log(process.alpha_at(t + step)) for step in (-h, h)]
    power = [process.sigma_at(t + step) ** 2 for step in (-h, h)]
    f = (log_alpha[1] - log_alpha[0]) / (2 * h)
    g2 = (power[1] - power[0]) / (2 * h) - 2 * f * process.sigma_at(t) ** 2
    # Rounding of the differences is 1e-16 / 1e-5 of values up to 2500 (VE).
    np.testing.assert_allclose(process.drift_at(t), f, rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(process.diffusion_at(t) ** 2, g2, rtol=1e-4, atol=1e-9)


@every
def test_programs_agree_with_the_host(process):
    assert isinstance(process, Process)
    t = np.asarray(inner(process, np.linspace(0, 1, 9)), np.float32)
    for name in METHODS:
        method = getattr(process, name)
        found, expected = jax.jit(method)(jnp.asarray(t)), method(t.astype(np.float64))
        assert found.dtype == jnp.float32 and expected.dtype == np.float64
        # 1 - alpha^2 and 1 - t lose digits in float32 near the ends.
        np.testing.assert_allclose(found, expected, rtol=2e-4, err_msg=name)


@every
def test_times_of_ratios(process):
    t = inner(process, np.linspace(0, 1, 9))
    t = t[t < process.t_max - 1] if process is PROCESSES["zero snr"] else t
    ratios = process.sigma_at(t) / process.alpha_at(t)
    np.testing.assert_allclose(process.time_of(ratios), t, rtol=1e-9)
    found = jax.jit(process.time_of)(jnp.asarray(ratios, jnp.float32))
    np.testing.assert_allclose(found, t, rtol=1e-3)  # float32, where ratios hardly change


@every
def test_training_times_lie_within_the_process(process):
    u = np.array([0.0, 0.3, np.nextafter(np.float32(1), np.float32(0))])
    times = process.time_at(u)
    assert np.all(np.diff(times) > 0) and np.all(np.isfinite(process.network_time(times)))
    if not isinstance(process, EDM):  # whose normal has no ends
        assert np.all((times >= process.t_min) & (times <= process.t_max))
    assert np.all(process.sigma_at(times[1:]) > 0)


@pytest.mark.parametrize("name", ["vp", "sub_vp", "ve"])
def test_coefficients_are_those_of_score_sde(name):
    golden, process = np.load(GOLDEN), PROCESSES[name]
    found = [getattr(process, method)(golden["t"]) for method in METHODS[:4]]
    np.testing.assert_allclose(found, golden[name], rtol=1e-12)


def test_what_networks_are_told():
    ends = np.array([0.0, 1.0])
    np.testing.assert_allclose(VP().network_time(ends), [0, 999])
    np.testing.assert_allclose(RectifiedFlow().network_time(ends), [0, 1000])
    np.testing.assert_allclose(EDM().network_time(np.array([1.0, np.e])), [0, 250])
    np.testing.assert_allclose(STEPS.network_time(np.array([0, 999])), [0, 999])


def test_discrete_process_is_the_schedule():
    t = np.arange(1000)
    for schedule in (STEPS, PROCESSES["zero snr"]):
        np.testing.assert_allclose(schedule.alpha_at(t), schedule.alpha, rtol=1e-13)
        np.testing.assert_allclose(schedule.sigma_at(t), schedule.sigma, rtol=1e-13)
        found = jax.jit(schedule.alpha_at)(jnp.asarray(t))
        np.testing.assert_allclose(found, schedule.alpha, rtol=1e-6)
    counts = np.bincount(STEPS.time_at((np.arange(3000) + 0.5) / 3000).astype(int))
    assert counts.tolist() == [3] * 1000


def test_shift_multiplies_the_ratio():
    flow, t = RectifiedFlow(shift=3), np.array([0.1, 0.5, 0.9])
    shifted = flow.shifted(t)
    np.testing.assert_allclose(shifted / (1 - shifted), 3 * t / (1 - t))


def test_bad_processes_are_named():
    for make in (
        lambda: VP(beta_min=0), lambda: SubVP(beta_min=3, beta_max=2), lambda: VE(sigma_max=0.001),
        lambda: EDM(t_min=0), lambda: EDM(p_std=0), lambda: RectifiedFlow(shift=0),
        lambda: VP(t_min=0), lambda: VE(t_max=2),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must satisfy"):
            make()
