"""KL autoencoder with a discriminator: DigitScenes at 32 px, f = 4.

    python train.py --config=configs/digit_scenes_kl_f4.py --workdir=runs/kl_f4

The discriminator starts half-way. Trains in about 4 minutes on one core. PSNR on held-out scenes is
27.4 dB; without the discriminator (`--loss.adversarial.start=600`) 27.1 dB. See
docs/first_stage.md.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    steps = 600
    return cfg.AutoencoderRun(
        data=cfg.Data(source=cfg.DigitScenes(), image_size=32, batch_size=16),
        autoencoder=cfg.Autoencoder(
            latent_channels=4,
            block_out_channels=(32, 64), layers_per_block=1,
            norm_num_groups=8, mid_attention=False, patch_size=2,
        ),
        loss=cfg.AutoencoderLoss(
            l1_weight=1.0, l2_weight=1.0, kl_weight=1e-4,
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
