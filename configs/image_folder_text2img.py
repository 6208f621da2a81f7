"""Text to image on your own folder of captioned images, with any autoencoder (yours or a trained
one).

    python train.py --config=image_folder_text2img --workdir=runs/text2img \
        --data.source.path=FOLDER --size=64 --first_stage=runs/autoencoder
    python sample.py --model=runs/text2img --prompt="..." --num=16 --out=samples

--size is usually the size the autoencoder was trained at, but any multiple of its downsampling
factor works. --network=small suits a laptop, medium one GPU, large several. Captions are split into
byte-pair tokens, so prompts can contain any word. The U-Net's input channels and conditioning
widths are set by the autoencoder and the conditioners. To train on classes (the folder's
subfolders) instead of captions, use `--conditioners=ClassConditioner --conditioners.0.num_classes=N
--objective.map_weight=0`.

Results with 1,214 images of 64 px on two cores are in docs/your_own_pictures.md.
"""

from typing import Literal

from ldm_jax import config as cfg


def get_config(
    size: cfg.Side = 64, network: Literal["small", "medium", "large"] = "small"
) -> cfg.DiffusionRun:
    small = network == "small"
    widths = {"small": (64, 128), "medium": (192, 384, 576), "large": (320, 640, 1280)}[network]
    width = {"small": 128, "medium": 512, "large": 768}[network]
    steps, batch_size = {"small": (2000, 32), "medium": (100_000, 64), "large": (300_000, 256)}[
        network
    ]
    encoder = cfg.TextTransformer(
        vocab_size=1024 if small else 8192, max_length=32 if small else 77, width=width,
        layers=2 if small else 6, num_heads=width // 64, pooled_dim=2 * width,
    )  # fmt: skip
    text = cfg.TextConditioner(encoder=encoder, tokenizer="bpe", dropout=0.1)
    # What made small models learn in minutes: see configs/digit_scenes_text2img.py.
    caption_map = (cfg.CaptionMapConditioner(width=1024),) if small else ()
    return cfg.DiffusionRun(
        data=cfg.Data(
            source=cfg.ImageFolder(), image_size=size, batch_size=batch_size,
            workers=0 if small else 4,
        ),
        conditioners=(text, *caption_map),
        unet=cfg.UNet(
            block_out_channels=widths,
            layers_per_block=1 if small else 2,
            attention=(False, *[True] * (len(widths) - 1)),
            num_heads=tuple(max(1, channels // 64) for channels in widths),
            use_linear_projection=True,
            patch_size=2 if small else 1,
            time_scale_shift=small,
        ),
        diffusion=cfg.Diffusion(
            cfg.Discrete(schedule="scaled_linear", beta_end=0.016 if small else 0.012),
            prediction="x0" if small else "v",
        ),
        objective=cfg.Objective(map_weight=1.0 if small else 0.0),
        optim=cfg.Optim(
            learning_rate=2e-3 if small else 1e-4, schedule="cosine", warmup_steps=steps // 20,
            weight_decay=1e-2, ema_decay=0.998 if small else 0.9999,
        ),
        loop=cfg.Loop(
            steps=steps, log_every=20 if small else 100, checkpoint_every=steps // 8,
            validate_every=steps // 8, sample_every=steps // 8,
            sample_guidance=2.0 if small else 3.0,
            dtype="float32" if small else "bfloat16", remat=network == "large",
        ),
    )  # fmt: skip
