"""Unconditional latent diffusion of DigitScenes at 16 px.

    python train.py --config=configs/digit_scenes_unconditional.py --workdir=runs/unconditional \
        --first_stage=runs/autoencoder
    python sample.py --model=runs/unconditional --num=16 --out=runs/unconditional/samples
"""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_text2img.py"))
    return replace(
        base,
        conditioners=(),
        unet=replace(base.unet, context_dim=None, pooled_dim=None, concat_channels=0),
        objective=replace(base.objective, map_weight=0.0),
    )
