"""Samplers by the names that users know them by."""

from typing import get_args

from ldm_jax.core.names import SamplerName, Spacing
from ldm_jax.core.typing import Process, Solver
from ldm_jax.diffusion.schedules import NoiseSchedule
from ldm_jax.diffusion.spacing import Grid
from ldm_jax.sampling.ancestral import DDIM, DDPM, LCM
from ldm_jax.sampling.dpm_multistep import DPMSolverPP2M, DPMSolverPP3M
from ldm_jax.sampling.multistep import DEIS, LMS, PLMS
from ldm_jax.sampling.sde import EulerMaruyama, ReverseDiffusion
from ldm_jax.sampling.singlestep import (
    DPM2Ancestral,
    DPMSolver,
    DPMSolverPP2SAncestral,
    DPMSolverPPSDE,
    Heun,
)
from ldm_jax.sampling.solver_base import Eta
from ldm_jax.sampling.unipc import UniPC

OVER_TIME = (
    "ddim", "ddpm", "ddpm_beta", "ddpm_learned", "plms", "lcm", "euler_maruyama",
    "reverse_diffusion",
)  # fmt: skip
"""Samplers over timesteps rather than noise levels."""

_LEVELS = ("euler", "euler_a", "heun", "lms", "dpm2", "dpm2_a", "dpmpp_sde")

GRIDS: dict[SamplerName, Grid] = {
    name: "timesteps" if name in OVER_TIME else "levels" if name in _LEVELS else "intervals"
    for name in get_args(SamplerName)
}
"""How each sampler's scheduler in diffusers counts places (see `spacing.spacing`)."""

_OTHER_SPACING: dict[str, Spacing] = {
    "plms": "leading", "euler": "linspace", "euler_a": "linspace", "heun": "linspace",
    "lms": "linspace",
}  # fmt: skip

DEFAULT_SPACING: dict[SamplerName, Spacing] = {
    name: _OTHER_SPACING.get(name, "trailing" if name in OVER_TIME else "karras")
    for name in get_args(SamplerName)
}
"""The spacing that each sampler is used with unless another is asked for."""

DEFAULT_ETA: dict[SamplerName, float] = {
    "ddim": 0.0, "euler_a": 1.0, "dpm2_a": 1.0, "dpmpp_2m_sde": 1.0, "dpmpp_2s_a": 1.0,
    "dpmpp_3m_sde": 1.0, "dpmpp_sde": 1.0,
}  # fmt: skip
"""The samplers that have an eta, and its value unless another is asked for."""


def make_solver(
    name: SamplerName, eta: Eta | None = None, process: Process | None = None
) -> Solver:
    """The solver of that name; "euler" and "euler_a" are DDIM's formula (see there).

    `eta` is the share of fresh noise: 0 is deterministic, 1 has the posterior's variance. Only
    the samplers in DEFAULT_ETA have it. It may be traced. Only "euler_maruyama" needs `process`.
    Raises ValueError for an unknown name, a negative eta, an eta given to another sampler, a
    process that is missing, and "lcm" with one in continuous time.
    """
    if name not in get_args(SamplerName):
        raise ValueError(f"sampler is {name!r}; it must be one of {get_args(SamplerName)}")
    if eta is not None and name not in DEFAULT_ETA:
        raise ValueError(
            f"eta is {eta}, but sampler {name!r} has none; leave it out, or choose one of "
            f"{tuple(DEFAULT_ETA)}"
        )
    if name == "euler_maruyama":
        if process is None:
            raise ValueError("euler_maruyama follows a process in its time; give process")
        return EulerMaruyama(process)
    if name == "lcm" and process is not None and not isinstance(process, NoiseSchedule):
        raise ValueError(
            f"lcm counts noise by timesteps 0, 1, 2, ..., which {type(process).__name__} does not "
            "have; choose another sampler"
        )
    return _solver(name, DEFAULT_ETA.get(name) if eta is None else eta)


def _solver(name: str, eta: Eta | None) -> Solver:
    match name:
        case "ddim" | "euler_a":
            return DDIM(eta)
        case "dpm2_a":
            return DPM2Ancestral(eta)
        case "dpmpp_2s_a":
            return DPMSolverPP2SAncestral(eta)
        case "dpmpp_sde":
            return DPMSolverPPSDE(eta)
        case "dpmpp_2m_sde":
            return DPMSolverPP2M(eta)
        case "dpmpp_3m_sde":
            return DPMSolverPP3M(eta)
    return {
        "ddpm": DDPM(), "ddpm_beta": DDPM("beta"), "ddpm_learned": DDPM("learned"),
        "plms": PLMS(), "euler": DDIM(), "heun": Heun(), "lms": LMS(), "deis": DEIS(),
        "dpm_solver_1": DDIM(), "dpm_solver_2": DPMSolver(2), "dpm_solver_3": DPMSolver(3),
        "dpm2": DPMSolver(2), "dpmpp_2m": DPMSolverPP2M(), "unipc": UniPC(), "unipc_3": UniPC(3),
        "unipc_bh1": UniPC(2, "bh1"), "lcm": LCM(), "reverse_diffusion": ReverseDiffusion(),
    }[name]  # fmt: skip
