"""DDPM on pixels (Ho 2020): DigitScenes at 16 px, linear betas, eps prediction, simple loss.

    python train.py --config=configs/digit_scenes_ddpm.py --workdir=runs/ddpm
    python sample.py --model=runs/ddpm --sampler=ddpm --steps=100 --threshold=0.5 --num=16
    python -m ldm_jax.evaluation likelihood --model=runs/ddpm --num=32 --steps=30

Scenes of one digit. --threshold=0.5 clips x0 to [-1, 1] as the published code does: at the noisiest
steps small errors of eps are large errors of x0. Trains in twelve minutes on one core. Then all of
64 images pass as scenes, and 32 validation images have 3.2 bits per dimension by the probability
flow (variational bound 3.6). See docs/digit_scenes_models.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    latents = cfg.load("digit_scenes_unconditional")
    steps = 2000
    return replace(
        latents,
        data=replace(latents.data, source=cfg.DigitScenes(max_digits=1)),
        space="pixels",
        unet=replace(latents.unet, patch_size=2),
        diffusion=cfg.Diffusion(
            process=cfg.Discrete(schedule="linear", beta_start=1e-4, beta_end=0.02),
            prediction="eps",
        ),
        loop=replace(latents.loop, steps=steps, checkpoint_every=steps, sample_every=steps),
    )  # fmt: skip
