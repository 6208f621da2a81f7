"""The process that settings describe."""

import dataclasses

import numpy as np
from jaxtyping import Float64

from ldm_jax import config as cfg
from ldm_jax.core.typing import Process
from ldm_jax.diffusion import processes, schedules
from ldm_jax.diffusion.schedules import NoiseSchedule


def build_process(config: cfg.Process) -> Process:
    """The process itself, for any of its settings."""
    match config:
        case cfg.Discrete():
            return NoiseSchedule(_alpha_bar(config))
        case cfg.VP() | cfg.SubVP() | cfg.VE() | cfg.EDM() | cfg.RectifiedFlow():
            return getattr(processes, type(config).__name__)(**dataclasses.asdict(config))


def betas(config: cfg.Discrete) -> Float64[np.ndarray, "t"]:
    """The variance that each step adds, shift and rescaling included; the last may be 1."""
    alpha_bar = _alpha_bar(config)
    return 1 - alpha_bar / np.append(1.0, alpha_bar[:-1])


def _alpha_bar(config: cfg.Discrete) -> Float64[np.ndarray, "t"]:
    if config.schedule == "given":
        noise = np.array(config.betas, np.float64)
    else:
        noise = schedules.betas(
            config.schedule, config.num_timesteps, config.beta_start, config.beta_end
        )
    alpha_bar = np.cumprod(1 - noise)
    if config.shift != 1:
        alpha_bar = schedules.shifted(alpha_bar, config.shift)
    return schedules.zero_terminal_snr(alpha_bar) if config.zero_terminal_snr else alpha_bar
