"""Unconditional latent diffusion on a folder of images, on its own first stage.

    python train.py --config=configs/image_folder_unconditional.py --workdir=runs/folder \
        --first_stage=runs/folder_autoencoder --data.source.path=FOLDER

For one GPU, after `configs/image_folder_autoencoder.py`.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    return cfg.DiffusionRun(
        data=cfg.Data(
            source=cfg.ImageFolder(crop="random", flip=True),
            image_size=256, batch_size=64, workers=4,
        ),
        unet=cfg.UNet(
            block_out_channels=(192, 384, 576),
            attention=(False, True, True),
            attention_kind="plain",
            num_heads=(6, 12, 18),
        ),
        diffusion=cfg.Diffusion(cfg.Discrete(schedule="scaled_linear"), prediction="eps"),
        optim=cfg.Optim(learning_rate=1e-4, warmup_steps=1000, weight_decay=1e-2),
        loop=cfg.Loop(
            steps=200_000, log_every=100, checkpoint_every=5000, validate_every=5000,
            sample_every=5000, dtype="bfloat16", remat=True,
        ),
    )  # fmt: skip
