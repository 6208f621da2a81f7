"""Class-conditional latent diffusion on your own folder of images with a subfolder for each class.

    python train.py --config=image_folder_class --workdir=runs/classes \
        --data.source.path=FOLDER --num_classes=14 --size=64 --first_stage=runs/autoencoder
    python sample.py --model=runs/classes --classes 0 3 --num=8 --guidance=2 --out=samples

First train `image_folder_autoencoder`; --size and --network have the same meaning there. Classes
are numbered in the alphabetical order of the subfolders.

Results with 6,597 images of 14 classes are in docs/clipart_classes.md.
"""

from dataclasses import replace
from typing import Literal

from ldm_jax import config as cfg


def get_config(
    size: cfg.Side = 64,
    network: Literal["small", "medium", "large"] = "small",
    num_classes: int = 1000,
) -> cfg.DiffusionRun:
    run = cfg.load("image_folder_text2img", size=size, network=network)
    classes = cfg.ClassConditioner(num_classes=num_classes, dropout=0.1)
    return replace(
        run, conditioners=(classes,), objective=replace(run.objective, map_weight=0.0)
    )  # fmt: skip
