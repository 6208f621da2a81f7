"""Inpainting with captions on DigitScenes at 16 px, on the demo's first stage.

    python train.py --config=digit_scenes_inpainting --workdir=runs/inpainting \
        --first_stage=runs/autoencoder

After 1,000 steps 0.95 of the digits that were cut out of held-out scenes come back as the caption
says, in the right colour; after 300 steps 0.83, or 0.93 where they begin with the demo's text
model, --init=runs/demo/text2img (docs/picture_tasks.md).
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    text = cfg.load("digit_scenes_text2img")
    holes = cfg.Masks(
        strokes=cfg.Strokes(weight=0.0),
        boxes=cfg.Boxes(1.0, 1, 1, 8, 12, 0),
        all_masked=0.1,
        side=16,
    )
    return replace(text, conditioners=(*text.conditioners, cfg.InpaintingConditioner(masks=holes)))
