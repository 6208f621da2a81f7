"""IDDPM on the pixels of DigitScenes at 16 px (Nichol & Dhariwal 2021): cosine schedule, learned
variance, hybrid loss.

    python train.py --config=configs/digit_scenes_iddpm.py --workdir=runs/iddpm
    python sample.py --model=runs/iddpm --sampler=ddpm_learned --steps=100 --threshold=0.5 --num=16
    python -m ldm_jax.evaluation --task=likelihood --model=runs/iddpm --num=32 --steps=30

Scenes of one digit. 600 steps took 7 minutes on a third of one core, and are too few: pictures are
like those of digit_scenes_ddpm.py, and the rater reads a digit in none of 64. Of 32 validation
pictures the bound is 35.56 +- 0.60 bits/dim, of which 30.6 are of t = 875 to 999: the cosine
schedule ends with so little signal that errors of eps become errors of x0 a thousand times as
large, which the published code hides by clipping x0 in the bound. The other terms and L_0 sum to
4.98, less than DDPM's 5.82, as L_0 is (1.74 and 2.45). The probability flow has 8.47 +- 0.07.
"""

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
