"""Text to image on DigitScenes at 16 px: stage two of the demo.

    python train.py --config=configs/digit_scenes_text2img.py --workdir=runs/text2img \
        --first_stage=runs/autoencoder

1,000 steps take four minutes on two cores. These shares of images of 384 held-out captions were
then correct (25 DDIM steps, guidance 2): 0.992 with one digit, 0.953 with two, 0.695 with three,
0.880 of all. `digit_scenes_demo` trains the same model for as long and does better with three.

These made it learn in minutes, most important first: the caption map, which shows the U-Net where
things go; predicting x0 with a schedule that spends half of the steps where the image content is
decided (signal-to-noise ratios of 0.006 to 0.4); and small batches.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    steps = 1000
    encoder = cfg.TextTransformer(
        vocab_size=64, max_length=16, width=64, layers=1, num_heads=4, pooled_dim=256
    )
    caption_map = cfg.CaptionMapConditioner(width=2048)
    return cfg.DiffusionRun(
        data=cfg.Data(source=cfg.DigitScenes(), image_size=16, batch_size=32),
        conditioners=(cfg.TextConditioner(encoder=encoder, dropout=0.1), caption_map),
        unet=cfg.UNet(
            block_out_channels=(64, 96),
            layers_per_block=1,
            attention=(False, True),
            num_heads=(4, 4),
            norm_num_groups=16,
            use_linear_projection=True,
            time_scale_shift=True,
        ),
        diffusion=cfg.Diffusion(
            process=cfg.Discrete(schedule="scaled_linear", beta_end=0.016), prediction="x0"
        ),
        objective=cfg.Objective(map_weight=1.0),
        optim=cfg.Optim(
            learning_rate=2e-3, schedule="cosine", warmup_steps=50, weight_decay=1e-2,
            ema_decay=0.995,
        ),
        loop=cfg.Loop(
            steps=steps, log_every=20, checkpoint_every=500, validate_every=500,
            validation_batches=4, sample_every=steps,
        ),
    )  # fmt: skip
