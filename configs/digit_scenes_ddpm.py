"""DDPM on the pixels of DigitScenes at 16 px (Ho 2020): linear betas, eps, the simple loss."""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    latents = cfg.load(Path(__file__).with_name("digit_scenes_unconditional.py"))
    steps = 600
    return replace(
        latents,
        data=replace(latents.data, source=cfg.DigitScenes(max_digits=1)),
        space="pixels",
        unet=replace(
            latents.unet, in_channels=3, out_channels=3, patch_size=2, block_out_channels=(32, 64)
        ),
        diffusion=cfg.Diffusion(
            process=cfg.Discrete(schedule="linear", beta_start=1e-4, beta_end=0.02),
            prediction="eps",
        ),
        loop=replace(latents.loop, steps=steps, checkpoint_every=steps, sample_every=steps),
    )  # fmt: skip
