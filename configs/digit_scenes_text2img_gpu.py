"""Text to image on DigitScenes at 16 px for a GPU: a U-Net of ten times the demo's size.

    python train.py --config=configs/digit_scenes_text2img_gpu.py --workdir=runs/text2img_gpu \
        --first_stage=runs/autoencoder

Tested by lowering it for CUDA and training single steps on a CPU. It has not been trained to the
end, so there is no measured result.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load("digit_scenes_text2img")
    return replace(
        base,
        data=replace(base.data, batch_size=256, workers=8),
        unet=replace(
            base.unet, block_out_channels=(192, 256), layers_per_block=2, num_heads=(8, 8)
        ),
        optim=replace(base.optim, learning_rate=5e-4, warmup_steps=500, ema_decay=0.999),
        loop=cfg.Loop(
            steps=20_000, log_every=100, checkpoint_every=2000, validate_every=2000,
            validation_batches=4, sample_every=5000, dtype="bfloat16",
        ),
    )  # fmt: skip
