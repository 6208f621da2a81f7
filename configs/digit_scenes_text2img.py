"""Stage two on DigitScenes at 16 px: the demo's text-to-image model.

    python train.py --config=configs/digit_scenes_text2img.py --workdir=runs/text2img \
        --first_stage=runs/autoencoder

On two cores 1,000 steps take four and a half minutes. `make demo` then found these shares of
384 held-out captions drawn right (25 DDIM steps, guidance 2): 0.992 of those with one digit,
0.938 with two, 0.727 with three, 0.885 of all.

What made it learn in minutes, in this order: the caption's map, which tells the U-Net what goes
where; the prediction of x0 with noise levels that spend half of the steps where the picture is
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
