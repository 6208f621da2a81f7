"""Rectified flow on DigitScenes at 16 px, text to image (Liu 2022)."""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_text2img.py"))
    steps = 300
    return replace(
        base,
        diffusion=cfg.Diffusion(process=cfg.RectifiedFlow(), prediction="velocity"),
        loop=replace(base.loop, steps=steps, checkpoint_every=steps, sample_every=steps),
    )
