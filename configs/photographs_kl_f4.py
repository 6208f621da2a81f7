r"""KL autoencoder with a discriminator: crops of photographs at 64 px, f = 4.

    python -m ldm_jax.data.photographs --out=runs/tiles
    python train.py --config=configs/photographs_kl_f4.py --workdir=runs/photographs_kl_f4 \
        --data.source.path=runs/tiles

The discriminator starts half-way. Trains in about 3 minutes on one core. PSNR on held-out tiles is
24.8 dB, with the discriminator or without (`--loss.adversarial.start=400`). Reconstructions are
still blurred: more steps help more than the discriminator. See docs/first_stage.md.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    steps = 400
    return cfg.AutoencoderRun(
        data=cfg.Data(
            source=cfg.ImageFolder(
                resize="none", crop="random", flip=True, validation_fraction=0.2
            ),
            image_size=64, batch_size=4,
        ),
        autoencoder=cfg.Autoencoder(
            latent_channels=4,
            block_out_channels=(32, 64), layers_per_block=1,
            norm_num_groups=8, mid_attention=False, patch_size=2,
        ),
        loss=cfg.AutoencoderLoss(
            l1_weight=1.0, l2_weight=1.0, kl_weight=1e-5,
            adversarial=cfg.Adversarial(
                weight=0.2, start=steps // 2, channels=32, layers=2, learning_rate=2e-4
            ),
        ),
        optim=cfg.Optim(
            learning_rate=1e-3, schedule="cosine", warmup_steps=50, beta1=0.5, beta2=0.9,
            ema_decay=0.99,
        ),
        loop=cfg.Loop(
            steps=steps, log_every=10, checkpoint_every=steps // 2, validate_every=50,
            validation_batches=4, sample_every=steps // 2,
        ),
    )  # fmt: skip
