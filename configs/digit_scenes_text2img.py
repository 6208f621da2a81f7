"""Stage two on DigitScenes at 16 px: the demo's text-to-image model.

    python train.py --config=configs/digit_scenes_text2img.py --workdir=runs/text2img \
        --first_stage=runs/autoencoder
"""

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    steps = 1500
    encoder = cfg.TextTransformer(
        vocab_size=64, max_length=16, width=128, layers=1, num_heads=4, pooled_dim=256
    )
    return cfg.DiffusionRun(
        data=cfg.Data(source=cfg.DigitScenes(), image_size=16, batch_size=64),
        condition=cfg.TextCondition(encoder=encoder, dropout=0.1),
        unet=cfg.UNet(
            in_channels=8,
            out_channels=8,
            block_out_channels=(96, 128),
            layers_per_block=1,
            attention=(False, True),
            num_heads=(4, 4),
            context_dim=encoder.width,
            pooled_dim=encoder.pooled_dim,
            norm_num_groups=16,
            use_linear_projection=True,
            time_scale_shift=True,
        ),
        diffusion=cfg.Diffusion(schedule="cosine", prediction="v"),
        optim=cfg.Optim(
            learning_rate=2e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-2,
            ema_decay=0.995,
        ),
        loop=cfg.Loop(
            steps=steps, log_every=20, checkpoint_every=500, validate_every=500,
            validation_batches=4, sample_every=steps,
        ),
    )  # fmt: skip
