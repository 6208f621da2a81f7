"""Samplers by the names that users know them by."""

from typing import Literal, get_args

from ldm_jax.sampling.ancestral import DDIM, DDPM
from ldm_jax.sampling.levels import Spacing
from ldm_jax.sampling.multistep import PLMS, DPMSolverPP2M
from ldm_jax.sampling.singlestep import Heun
from ldm_jax.typing import Solver

SamplerName = Literal["ddim", "ddpm", "plms", "euler", "euler_a", "heun", "dpmpp_2m"]

DEFAULT_SPACING: dict[SamplerName, Spacing] = {
    "ddim": "trailing",
    "ddpm": "trailing",
    "plms": "leading",
    "euler": "linspace",
    "euler_a": "linspace",
    "heun": "linspace",
    "dpmpp_2m": "karras",
}
"""The spacing that each sampler is used with unless another is asked for."""

DEFAULT_ETA: dict[SamplerName, float] = {"ddim": 0.0, "euler_a": 1.0}
"""The samplers that have an eta, and its value unless another is asked for."""


def make_solver(name: SamplerName, eta: float | int | None = None) -> Solver:
    """The solver of that name; "euler" and "euler_a" are DDIM's formula (see there).

    `eta` is the share of fresh noise: 0 is deterministic, 1 has the posterior's variance. Only
    the samplers in DEFAULT_ETA have it. Raises ValueError for an unknown name, a negative eta,
    and an eta given to another sampler.
    """
    if name not in get_args(SamplerName):
        raise ValueError(f"sampler is {name!r}; it must be one of {get_args(SamplerName)}")
    if eta is not None and name not in DEFAULT_ETA:
        raise ValueError(
            f"eta is {eta}, but sampler {name!r} has none; leave it out, or choose one of "
            f"{tuple(DEFAULT_ETA)}"
        )
    match name:
        case "ddim" | "euler_a":
            return DDIM(DEFAULT_ETA[name] if eta is None else eta)
        case "euler":
            return DDIM()
        case "ddpm":
            return DDPM()
        case "plms":
            return PLMS()
        case "heun":
            return Heun()
        case "dpmpp_2m":
            return DPMSolverPP2M()
