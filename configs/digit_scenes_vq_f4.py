"""Stage one on DigitScenes at 32 px, f = 4, with a codebook of moving averages, then a critic.

    python train.py --config=configs/digit_scenes_vq_f4.py --workdir=runs/vq_f4

About 4 minutes of one core. Without the critic (`--loss.adversarial.start=600`) 25.2 dB on held-out
scenes, with it 25.6 dB; all 256 codes are used, of which plain VQ uses 11 %
(`--autoencoder.bottleneck.ema_decay=None --autoencoder.bottleneck.revive_after=None`). See
docs/first_stage.md.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    steps = 600
    return cfg.AutoencoderRun(
        data=cfg.Data(source=cfg.DigitScenes(), image_size=32, batch_size=16),
        autoencoder=cfg.Autoencoder(
            latent_channels=4,
            bottleneck=cfg.VQ(size=256, ema_decay=0.99, revive_after=20),
            block_out_channels=(32, 64), layers_per_block=1,
            norm_num_groups=8, mid_attention=False, patch_size=2,
        ),
        loss=cfg.AutoencoderLoss(
            l1_weight=1.0, l2_weight=1.0,
            adversarial=cfg.Adversarial(
                weight=0.2, start=steps // 2, channels=32, layers=2, learning_rate=5e-4
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
