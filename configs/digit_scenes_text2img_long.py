"""Stage two on DigitScenes at 16 px: the demo's model, trained three times as long.

    python train.py --config=configs/digit_scenes_text2img_long.py --workdir=runs/text2img_long \
        --first_stage=runs/autoencoder

RESULT
"""

from dataclasses import replace
from pathlib import Path

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load(Path(__file__).with_name("digit_scenes_text2img.py"))
    return replace(
        base,
        optim=replace(base.optim, ema_decay=0.999),
        loop=replace(
            base.loop, steps=3000, log_every=50, checkpoint_every=1000, validate_every=1000,
            sample_every=3000,
        ),
    )  # fmt: skip
