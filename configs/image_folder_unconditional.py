"""Unconditional latent diffusion on your own folder of images, without captions.

    python train.py --config=image_folder_unconditional --workdir=runs/folder \
        --data.source.path=FOLDER --size=64 --first_stage=runs/autoencoder

First train `image_folder_autoencoder`; --size and --network have the same meaning there.
"""

from dataclasses import replace
from typing import Literal

from ldm_jax import config as cfg


def get_config(
    size: cfg.Side = 64, network: Literal["small", "medium", "large"] = "small"
) -> cfg.DiffusionRun:
    run = cfg.load("image_folder_text2img", size=size, network=network)
    return replace(
        run, conditioners=(), unet=replace(run.unet, attention_kind="plain"),
        objective=replace(run.objective, map_weight=0.0),
    )  # fmt: skip
