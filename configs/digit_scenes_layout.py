"""Layout to image on DigitScenes at 16 px, on the demo's first stage.

    python train.py --config=digit_scenes_layout --workdir=runs/layout \
        --first_stage=runs/autoencoder

After 1,000 steps digits lie in their boxes, but which digit belongs into a box is not learnt yet
(docs/picture_tasks.md).
"""

from dataclasses import replace

from ldm_jax import config as cfg
from ldm_jax.data.digit_scenes import DIGITS


def get_config() -> cfg.DiffusionRun:
    text = cfg.load("digit_scenes_text2img")
    tokens = cfg.LayoutTokens(num_classes=10, max_objects=3, grid=17, vocab_size=290, crop=False)
    conditioner = cfg.LayoutConditioner(
        tokens=tokens, class_names=DIGITS, width=64, layers=2, num_heads=4, head_dim=16
    )
    return replace(
        text, conditioners=(conditioner,), objective=replace(text.objective, map_weight=0.0)
    )
