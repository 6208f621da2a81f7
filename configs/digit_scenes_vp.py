"""VP (variance preserving) score SDE on pixels (Song 2021): DigitScenes at 16 px.

    python train.py --config=configs/digit_scenes_vp.py --workdir=runs/vp
    python sample.py --model=runs/vp --sampler=heun --steps=18 --num=16
    python sample.py --model=runs/vp --sampler=reverse_diffusion --corrector=langevin --steps=100
    python -m ldm_jax.evaluation likelihood --model=runs/vp --num=32 --steps=30

Scenes of one digit. Trains in eleven minutes on one core. Then all of 64 images pass as scenes with
the corrector, but only 0.34 by the probability flow, which needs a better network. With
`--diffusion.prediction=x0` both sample well, but likelihoods are useless. 32 validation images have
3.3 bits per dimension. See docs/digit_scenes_models.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load("digit_scenes_ddpm")
    return replace(base, diffusion=cfg.Diffusion(process=cfg.VP(), prediction="eps"))
