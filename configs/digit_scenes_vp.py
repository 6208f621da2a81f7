"""A VP score model of the pixels of DigitScenes at 16 px, in continuous time (Song 2021).

    python train.py --config=configs/digit_scenes_vp.py --workdir=runs/vp
    python sample.py --model=runs/vp --sampler=heun --steps=18 --num=16
    python sample.py --model=runs/vp --sampler=reverse_diffusion --corrector=langevin --steps=100
    python -m ldm_jax.evaluation --task=likelihood --model=runs/vp --num=32 --steps=30

The network predicts x0, of which the score is made: -(x - alpha x0) / sigma^2. Near the data sigma
is 0.01, and errors of x0 become errors of the score a hundred times as large: eps where
likelihoods matter. Scenes of one digit. No result has been measured yet.
"""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_ddpm.py"))
    return replace(base, diffusion=cfg.Diffusion(process=cfg.VP(), prediction="x0"))
