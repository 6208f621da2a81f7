"""Fine-tune any text-to-image model on a folder of images with captions.

    python train.py --config=finetune_text2img --init=MODEL --workdir=runs/mine \
        --data.source.path=FOLDER

MODEL is whatever `python -m ldm_jax.convert` reads: a diffusers folder, a single file of Stable
Diffusion 1 or 2, a work directory. Its shapes, its process and its image size are taken over. The
U-Net is trained; add the text encoder with --train unet text_encoder, usually with
--text_encoder_learning_rate=1e-6. The average begins with the model's own weights.
All images are trained on; --data.source.validation_fraction=0.05 holds some out.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config(init: cfg.Model) -> cfg.DiffusionRun:
    return cfg.DiffusionRun(
        data=cfg.Data(
            cfg.ImageFolder(crop="random", validation_fraction=0.0), init.image_size, batch_size=4
        ),
        conditioners=tuple(
            replace(part, dropout=0.1) if isinstance(part, cfg.TextConditioner) else part
            for part in init.conditioners
        ),
        unet=init.unet,
        diffusion=init.diffusion,
        train=("unet",),
        objective=cfg.Objective(distance="l2"),
        optim=cfg.Optim(learning_rate=1e-5, weight_decay=1e-2, ema_decay=0.9999),
        loop=cfg.Loop(
            steps=2000, checkpoint_every=500, validate_every=500, sample_every=500, remat=True
        ),
    )  # fmt: skip
