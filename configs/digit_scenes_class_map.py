"""Class map to image on DigitScenes at 16 px, on the demo's first stage.

    python train.py --config=digit_scenes_class_map --workdir=runs/class_map \
        --first_stage=runs/autoencoder

600 steps took two and a half minutes on two cores that others used as well. 0.97 of the digits of
384 held-out scenes were then right, and strokes overlapped with class maps by 0.79
(docs/picture_tasks.md).
"""

from dataclasses import replace

from ldm_jax import config as cfg
from ldm_jax.data.digit_scenes import DIGITS


def get_config() -> cfg.DiffusionRun:
    text = cfg.load("digit_scenes_text2img")
    conditioner = cfg.ClassMapConditioner(
        maps=cfg.ClassMaps(num_classes=11, ignore=None), class_names=("nothing", *DIGITS),
        channels=16,
    )  # fmt: skip
    return replace(
        text, conditioners=(conditioner,), objective=replace(text.objective, map_weight=0.0),
        loop=replace(text.loop, steps=600),
    )  # fmt: skip
