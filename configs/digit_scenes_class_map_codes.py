"""Class map to image with a transformer over codes: DigitScenes at 32 px, 8 x 8 codes of the class
map before 8 x 8 of the image.

    python train.py --config=configs/digit_scenes_vq_f4.py --workdir=runs/vq_f4
    python train.py --config=configs/digit_scenes_class_map_vq.py --workdir=runs/map_vq
    python train.py --config=configs/digit_scenes_class_map_codes.py --workdir=runs/map_codes \
        --first_stage=runs/vq_f4 --condition_stage=runs/map_vq
    python -m ldm_jax.cli.sample_codes --model=runs/map_codes --class_map=MAP.png --out=samples

1000 steps took 45 minutes on two cores that many others used as well. Held-out scenes then have
strokes where the class map has them (overlap 0.41), but which digit it is is still chance (0.11
right); after 1781 of --loop.steps=3000 it is 0.28. See docs/code_transformer.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.CodeTransformerRun:
    codes = cfg.load("digit_scenes_codes")
    maps = cfg.load("digit_scenes_class_map_vq").maps
    return replace(codes, condition=cfg.ClassMapPrefix(maps), loop=replace(codes.loop, steps=1000))
