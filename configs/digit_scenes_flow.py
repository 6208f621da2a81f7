"""Text to image with rectified flow (Liu 2022): DigitScenes at 16 px, velocity prediction.

    python train.py --config=configs/digit_scenes_flow.py --workdir=runs/flow \
        --first_stage=runs/autoencoder
    python sample.py --model=runs/flow --sampler=euler --steps=25 --guidance=2 \
        --prompt="a red three above a blue seven"

Trains in seven minutes on one core. Then images of 0.86 of 64 held-out captions are correct. See
docs/digit_scenes_models.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load("digit_scenes_text2img")
    steps = 1000
    return replace(
        base,
        diffusion=cfg.Diffusion(process=cfg.RectifiedFlow(), prediction="velocity"),
        loop=replace(base.loop, steps=steps, checkpoint_every=steps, sample_every=steps),
    )
