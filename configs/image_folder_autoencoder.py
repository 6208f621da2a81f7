"""Stage one on a folder of images: the shape of Stable Diffusion's autoencoder (f = 8), narrower.

    python train.py --config=configs/image_folder_autoencoder.py --workdir=runs/folder_autoencoder \
        --data.source.path=FOLDER

For one GPU. `--data.image_size`, `--data.batch_size` and `--loop.steps` fit it to the machine.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    return cfg.AutoencoderRun(
        data=cfg.Data(
            source=cfg.ImageFolder(crop="random", flip=True),
            image_size=256, batch_size=16, workers=4,
        ),
        autoencoder=cfg.Autoencoder(block_out_channels=(64, 128, 256, 256)),
        loss=cfg.AutoencoderLoss(l1_weight=1.0, kl_weight=1e-6),
        optim=cfg.Optim(learning_rate=1e-4, warmup_steps=1000, ema_decay=0.999),
        loop=cfg.Loop(
            steps=100_000, log_every=100, checkpoint_every=2500, validate_every=2500,
            sample_every=2500, dtype="bfloat16", remat=True,
        ),
    )  # fmt: skip
