"""A VP score model of the pixels of DigitScenes at 16 px, in continuous time (Song 2021)."""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_ddpm.py"))
    return replace(base, diffusion=cfg.Diffusion(process=cfg.VP(), prediction="x0"))
