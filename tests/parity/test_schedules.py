"""Schedules and spacings beside those that diffusers' schedulers compute live."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers.schedulers.scheduling_utils import AysSchedules  # noqa: E402

from ldm_jax import config as cfg  # noqa: E402
from ldm_jax.diffusion.processes import RectifiedFlow  # noqa: E402
from ldm_jax.diffusion.spacing import ALIGN_YOUR_STEPS  # noqa: E402
from ldm_jax.models.process import betas, build_process  # noqa: E402
from ldm_jax.sampling.levels import levels, levels_at, levels_of  # noqa: E402

# The peer hands tensors to numpy in a way that numpy 2 is about to leave.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

STABLE_DIFFUSION = {
    "num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}  # fmt: skip
SCHEDULE = build_process(cfg.Discrete())


def ratios(path):
    return np.asarray(path.sigma, np.float64) / np.asarray(path.alpha, np.float64)


@pytest.mark.parametrize("kind", ["scaled_linear", "linear", "cosine", "sigmoid_betas", "given"])
@pytest.mark.parametrize("rescaled", [False, True])
def test_betas(kind, rescaled):
    names = {"cosine": "squaredcos_cap_v2", "sigmoid_betas": "sigmoid", "given": "linear"}
    given = tuple(np.linspace(0.01, 0.2, 50).tolist()) if kind == "given" else ()
    ours = cfg.Discrete(50, kind, 0.001, 0.1, betas=given, zero_terminal_snr=rescaled)
    peer = diffusers.DDPMScheduler(
        50, 0.001, 0.1, names.get(kind, kind), trained_betas=given or None,
        rescale_betas_zero_snr=rescaled,
    )  # fmt: skip
    # The peer computes in float32, and 1 - alpha_bar / alpha_bar loses a few digits.
    np.testing.assert_allclose(betas(ours), peer.betas.numpy(), rtol=2e-4, atol=2e-6)
    alpha_bar = build_process(ours).alpha_bar
    np.testing.assert_allclose(alpha_bar, peer.alphas_cumprod.numpy(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("steps", [2, 7, 30, 999])
@pytest.mark.parametrize("spacing", ["karras", "exponential"])
def test_ratios(spacing, steps):
    peer = diffusers.EulerDiscreteScheduler(
        **STABLE_DIFFUSION, **{f"use_{spacing}_sigmas": True}, timestep_spacing="linspace"
    )
    peer.set_timesteps(steps)
    path = levels(SCHEDULE, steps, spacing, "one")
    np.testing.assert_allclose(ratios(path), peer.sigmas.numpy(), rtol=2e-5)
    if spacing == "karras":
        times = np.asarray(path.timestep[:-1])
        np.testing.assert_allclose(times, peer.timesteps.numpy(), atol=0.02)


@pytest.mark.parametrize(("ours", "name"), [("ays_sd15", ""), ("ays_sdxl", "XL")])
def test_align_your_steps(ours, name):
    timesteps = AysSchedules[f"StableDiffusion{name}Timesteps"]
    sigmas = np.array(AysSchedules[f"StableDiffusion{name}Sigmas"])
    assert list(ALIGN_YOUR_STEPS[ours]) == timesteps
    path = levels(SCHEDULE, 10, ours, "one")
    # Published with three digits.
    np.testing.assert_allclose(ratios(path), sigmas, rtol=0.015, atol=6e-4)
    np.testing.assert_allclose(ratios(levels_of(SCHEDULE, sigmas)), sigmas, rtol=1e-4)
    peer = diffusers.EulerDiscreteScheduler(**STABLE_DIFFUSION)
    peer.set_timesteps(timesteps=timesteps)
    path = levels_at(SCHEDULE, np.array(timesteps), "one")
    np.testing.assert_allclose(ratios(path), peer.sigmas.numpy(), rtol=2e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_rectified_flow(shift):
    """With the sigmas that the pipelines give it: 1, 1 - 1 / S, ..., 1 / S."""
    peer = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    peer.set_timesteps(sigmas=np.linspace(1, 1 / 28, 28))
    path = levels(RectifiedFlow(shift=shift), 28, "trailing", "one")
    np.testing.assert_allclose(path.sigma, peer.sigmas.numpy(), atol=1e-6)
    told = RectifiedFlow().network_time(path.timestep[:-1])
    np.testing.assert_allclose(told, peer.timesteps.numpy(), rtol=1e-5)
