"""Teach any text-to-image model a subject from a few pictures (DreamBooth): a LoRA, or the U-Net.

    python train.py --config=dreambooth --init=MODEL --workdir=runs/sks \
        --data.source.path=SUBJECTS --data.source.class_path=CLASSES \
        --data.source.class_prompts "a photo of a dog"

SUBJECTS has a subfolder for each subject, called by repeats and prompt: `1_a photo of sks dog`; or
the pictures themselves, with --data.source.prompt="a photo of sks dog". CLASSES has such folders of
the subjects' classes; what is missing of class_prompts is drawn by MODEL first. Half of each batch
is of these. Without class_path, data.batch_size may be 1 and the class drifts towards the subject.
--method=unet trains the U-Net itself; 400 steps of 2 + 2 images suit a thing, 800 to 1200 a face.
"""

from dataclasses import replace
from typing import Literal

from ldm_jax import config as cfg


def get_config(init: cfg.Model, method: Literal["lora", "unet"] = "lora") -> cfg.DiffusionRun:
    lora = cfg.ModuleAdapter(cfg.LoRA(rank=8), modules=("attention",))
    return cfg.DiffusionRun(
        data=cfg.Data(cfg.DreamBooth(), init.image_size, batch_size=4),
        conditioners=tuple(
            replace(part, dropout=0.0) if isinstance(part, cfg.TextConditioner) else part
            for part in init.conditioners
        ),
        unet=init.unet,
        diffusion=init.diffusion,
        train=("adapter",) if method == "lora" else ("unet",),
        adapter=lora if method == "lora" else None,
        objective=cfg.Objective(distance="l2"),
        optim=cfg.Optim(
            learning_rate=1e-4 if method == "lora" else 5e-6, weight_decay=1e-2, ema_decay=None
        ),
        loop=cfg.Loop(steps=400, checkpoint_every=200, sample_every=200, remat=True),
    )  # fmt: skip
