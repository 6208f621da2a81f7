"""Autoencoder (VAE) on your own folder of images: stage one, before a diffusion model.

    python train.py --config=image_folder_autoencoder --workdir=runs/autoencoder \
        --data.source.path=FOLDER --size=64

--size is the side of the training images in pixels: 32, 64, 128, 256 or more. --network=small suits
a laptop, medium one GPU, large is as wide as Stable Diffusion's. The downsampling factor f is 2 up
to 32 px, 4 up to 96 px, and 8 above. --size must be a multiple of f, and of 2 f for the small
network, whose U-Net folds 2 x 2 latents. If left and right do not matter in your images, also train
on mirrored ones: --data.source.flip=True.

Results with 1,214 images of 64 px on two cores are in docs/your_own_pictures.md.
"""

from typing import Literal

from ldm_jax import config as cfg


def get_config(
    size: cfg.Side = 64, network: Literal["small", "medium", "large"] = "small"
) -> cfg.AutoencoderRun:
    halvings = 1 if size <= 32 else 2 if size <= 96 else 3
    unet = cfg.load("image_folder_text2img", network=network).unet
    cfg.require_divisible("--size", size, 2**halvings * unet.side_multiple,
                          "what autoencoder and U-Net can divide")  # fmt: skip
    small = network == "small"
    widths = {"small": (32, 64, 96), "medium": (64, 128, 256, 256), "large": (128, 256, 512, 512)}
    # A small one folds 2 x 2 pixels into channels, which is one halving without convolutions.
    levels = halvings if small else halvings + 1
    steps, batch_size = {"small": (2000, 16), "medium": (50_000, 16), "large": (200_000, 16)}[
        network
    ]
    return cfg.AutoencoderRun(
        data=cfg.Data(
            source=cfg.ImageFolder(), image_size=size, batch_size=batch_size,
            workers=0 if small else 4,
        ),
        autoencoder=cfg.Autoencoder(
            latent_channels=8 if small else 4,
            block_out_channels=widths[network][:levels],
            layers_per_block=1 if small else 2,
            mid_attention=not small,
            patch_size=2 if small else 1,
        ),
        loss=cfg.AutoencoderLoss(l1_weight=1.0, l2_weight=1.0, kl_weight=1e-6),
        optim=cfg.Optim(
            learning_rate=1e-3 if small else 1e-4, schedule="cosine", warmup_steps=steps // 40,
            ema_decay=0.999,
        ),
        loop=cfg.Loop(
            steps=steps, log_every=20 if small else 100, checkpoint_every=steps // 8,
            validate_every=steps // 8, sample_every=steps // 4,
            dtype="float32" if small else "bfloat16", remat=network == "large",
        ),
    )  # fmt: skip
