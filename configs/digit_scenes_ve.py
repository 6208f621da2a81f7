"""A VE score model of the pixels of DigitScenes at 16 px, in continuous time (Song 2021)."""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_ddpm.py"))
    return replace(
        base,
        diffusion=cfg.Diffusion(
            # The largest distance between two of 1,500 training pictures is 31.2.
            process=cfg.VE(sigma_min=0.01, sigma_max=31.0),
            prediction="edm",
            sigma_data=0.5,
        ),
    )
