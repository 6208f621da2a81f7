"""Unconditional latent diffusion: DigitScenes at 16 px.

    python train.py --config=configs/digit_scenes_unconditional.py --workdir=runs/unconditional \
        --first_stage=runs/autoencoder
    python sample.py --model=runs/unconditional --num=16 --out=runs/unconditional/samples
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load("digit_scenes_text2img")
    return replace(
        base,
        conditioners=(),
        objective=replace(base.objective, map_weight=0.0),
    )
