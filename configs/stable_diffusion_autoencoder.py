"""Stable Diffusion 1's autoencoder (f = 8, 4 channels, 83,653,863 parameters) on your own images.

    python train.py --config=configs/stable_diffusion_autoencoder.py --workdir=runs/sd_autoencoder \
        --data.source.path=FOLDER

FOLDER is as in `ldm_jax.config.ImageFolder`. The batch is for 64 chips of 16 GB; fewer need
`--optim.accumulation`. The loss is L1 + KL alone, so reconstructions of a model trained with it
are softer than those of the published weights, whose latent scale 0.18215 is. For weights of your
own let it be measured: `--autoencoder.latent_scale=None`. Not trained to the end by us.
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
