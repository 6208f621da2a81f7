"""Stable Diffusion 1's autoencoder (VAE) on your own images: f = 8, 4 channels, 83,653,863
parameters.

    python train.py --config=configs/stable_diffusion_autoencoder.py --workdir=runs/sd_autoencoder \
        --data.source.path=FOLDER

FOLDER is a folder of images (docs/train.md, "Your images"). The batch size is for 64 chips of 16
GB; with fewer use gradient accumulation (`--optim.accumulation`). The loss is only L1 + KL, so
reconstructions are softer than with the published weights. The latent scale 0.18215 belongs to the
published weights; when training your own, have it measured: `--autoencoder.latent_scale=None`. We
have not trained this config to the end.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    return cfg.AutoencoderRun(
        data=cfg.Data(
            source=cfg.ImageFolder(path="images", crop="random", flip=True),
            image_size=256,
            batch_size=256,
            workers=8,
        ),
        autoencoder=cfg.Autoencoder(latent_scale=0.18215),
        loss=cfg.AutoencoderLoss(l1_weight=1.0, kl_weight=1e-6),
        optim=cfg.Optim(learning_rate=1e-4, warmup_steps=1000, ema_decay=0.999),
        loop=cfg.Loop(
            steps=200_000, log_every=100, checkpoint_every=5000, keep=2, validate_every=5000,
            sample_every=5000, dtype="bfloat16", remat=True,
        ),
    )  # fmt: skip
