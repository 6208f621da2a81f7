"""Text to image on DigitScenes at 16 px with v and zero terminal SNR (Lin 2024)."""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_text2img.py"))
    process = replace(base.diffusion.process, zero_terminal_snr=True)
    steps = 300
    return replace(
        base,
        diffusion=cfg.Diffusion(process=process, prediction="v"),
        loop=replace(base.loop, steps=steps, checkpoint_every=steps, sample_every=steps),
    )
