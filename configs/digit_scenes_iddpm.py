"""IDDPM on the pixels of DigitScenes at 16 px (Nichol & Dhariwal 2021)."""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_ddpm.py"))
    return replace(
        base,
        unet=replace(base.unet, out_channels=6),
        diffusion=cfg.Diffusion(
            process=cfg.Discrete(schedule="cosine"), prediction="eps", learned_variance=True
        ),
        objective=cfg.Objective(loss="hybrid"),
    )
