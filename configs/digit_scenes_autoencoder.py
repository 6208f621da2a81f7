"""Autoencoder for DigitScenes at 16 px, f = 2: stage one of the demo.

python train.py --config=configs/digit_scenes_autoencoder.py --workdir=runs/autoencoder
"""

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    steps = 600
    return cfg.AutoencoderRun(
        data=cfg.Data(source=cfg.DigitScenes(), image_size=16, batch_size=32),
        autoencoder=cfg.Autoencoder(
            latent_channels=8,
            block_out_channels=(64,),
            layers_per_block=1,
            norm_num_groups=16,
            mid_attention=False,
            patch_size=2,
        ),
        loss=cfg.AutoencoderLoss(l1_weight=1.0, l2_weight=2.0, kl_weight=1e-4),
        optim=cfg.Optim(
            learning_rate=5e-3, schedule="cosine", warmup_steps=20, ema_decay=0.99
        ),
        loop=cfg.Loop(
            steps=steps, log_every=20, checkpoint_every=steps, validate_every=250,
            validation_batches=4, sample_every=steps,
        ),
    )  # fmt: skip
