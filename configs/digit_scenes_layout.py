"""Layout to image on DigitScenes at 16 px, on the demo's first stage.

    python train.py --config=digit_scenes_layout --workdir=runs/layout \
        --first_stage=runs/autoencoder

1,000 steps took twelve minutes on two cores that others used as well. 0.97 of the digits of 384
held-out scenes then had the digit and the colour that their box asked for. With tokens alone
(box_map_channels=None) it was chance: small models learn from the map what belongs where.
"""

from dataclasses import replace

from ldm_jax import config as cfg
from ldm_jax.data.digit_scenes import COLOURED_DIGITS


def get_config() -> cfg.DiffusionRun:
    text = cfg.load("digit_scenes_text2img")
    tokens = cfg.LayoutTokens(num_classes=60, max_objects=3, grid=17, vocab_size=290, crop=False)
    conditioner = cfg.LayoutConditioner(
        tokens=tokens, class_names=COLOURED_DIGITS, width=64, layers=2, num_heads=4, head_dim=16,
        box_map_channels=16,
    )  # fmt: skip
    return replace(
        text,
        data=replace(text.data, source=cfg.DigitScenes(box_classes="coloured_digits")),
        conditioners=(conditioner,),
        objective=replace(text.objective, map_weight=0.0),
    )
