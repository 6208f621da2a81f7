"""The timesteps of every number of steps, beside those that diffusers' schedulers make live."""

import inspect

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from ldm_jax.diffusion.spacing import spacing  # noqa: E402
from ldm_jax.sampling.solvers import GRIDS  # noqa: E402

# The peer hands tensors to numpy in a way that numpy 2 is about to leave.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PEERS = {
    "DDIMScheduler": ("ddim",), "DDPMScheduler": ("ddpm", "ddpm_beta", "ddpm_learned"),
    "PNDMScheduler": ("plms",), "EulerDiscreteScheduler": ("euler",),
    "EulerAncestralDiscreteScheduler": ("euler_a",), "HeunDiscreteScheduler": ("heun",),
    "LMSDiscreteScheduler": ("lms",), "KDPM2DiscreteScheduler": ("dpm2",),
    "KDPM2AncestralDiscreteScheduler": ("dpm2_a",),
    "DPMSolverMultistepScheduler": ("dpmpp_2m", "dpmpp_2m_sde", "dpmpp_3m_sde"),
    "UniPCMultistepScheduler": ("unipc", "unipc_3", "unipc_bh1"),
    "DEISMultistepScheduler": ("deis",),
    "DPMSolverSinglestepScheduler": ("dpm_solver_2", "dpm_solver_3", "dpmpp_2s_a"),
}  # fmt: skip
"""The peer's class → our samplers of that name."""
OPTIONS = {"PNDMScheduler": {"skip_prk_steps": True},
           "DPMSolverSinglestepScheduler": {"lower_order_final": True}}  # fmt: skip
TWICE = {"HeunDiscreteScheduler": 1, "KDPM2DiscreteScheduler": 37,
         "KDPM2AncestralDiscreteScheduler": 37}  # fmt: skip
"""Peers whose list holds two evaluations for each step but one; every how many steps are compared,
where what they compute for the evaluations between takes long."""


def peers_list(name, total, kind, offset):
    """steps → the peer's timesteps, falling, once each step."""
    given = {"timestep_spacing": kind, "steps_offset": offset}
    peer = getattr(diffusers, name)
    if "timestep_spacing" not in inspect.signature(peer.__init__).parameters:
        if (kind, offset) != ("linspace", 0):
            pytest.skip("the peer has one list")
        given = {}
    made = peer(
        num_train_timesteps=total, beta_start=0.00085, beta_end=0.012,
        beta_schedule="scaled_linear", **given, **OPTIONS.get(name, {}),
    )  # fmt: skip

    if "KDPM2" in name:
        made._sigma_to_t = lambda *_: 0.0  # of what is asked between, which is not looked at

    def get(steps):
        made.set_timesteps(steps)
        times = made.timesteps.numpy().astype(np.float64)
        if name in TWICE:
            return np.append(times[:1], times[(1 if "Heun" in name else 2) :: 2])
        return np.delete(times, 1) if "PNDM" in name and steps > 1 else times

    return get


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("kind", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", PEERS)
def test_every_number_of_steps(name, kind, offset):
    (grid,) = {GRIDS[sampler] for sampler in PEERS[name]}
    for total in (1000, 100):
        peers = peers_list(name, total, kind, offset)
        for steps in range(1, total, TWICE.get(name, 1)):
            expected = peers(steps)
            if kind == "trailing" and expected[-1] == -1 and expected.size == steps + 1:
                expected = expected[:-1]  # its running difference falls short of its end
            if kind == "leading" and grid == "intervals" and expected[0] == total:
                assert (offset, steps) == (1, total - 1)
                expected = expected - 1  # which no schedule has
            found = spacing(kind, total, steps, grid, offset)[::-1]
            np.testing.assert_allclose(
                found, expected, rtol=1e-6, atol=1e-6, err_msg=f"{steps} of {total}"
            )


def test_every_sampler_has_a_grid():
    compared = {sampler for samplers in PEERS.values() for sampler in samplers}
    alone = {"dpmpp_sde", "dpm_solver_1", "lcm", "euler_maruyama", "reverse_diffusion"}
    assert compared | alone == set(GRIDS) and not compared & alone
