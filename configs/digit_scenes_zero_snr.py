"""Text to image with v prediction and zero terminal SNR (Lin 2024): DigitScenes at 16 px.

    python train.py --config=configs/digit_scenes_zero_snr.py --workdir=runs/zero_snr \
        --first_stage=runs/autoencoder
    python sample.py --model=runs/zero_snr --steps=25 --guidance=2 --guidance_rescale=0.7 \
        --prompt="a red three above a blue seven"

The schedule is the demo's, rescaled to end in pure noise, where v is -x0. Trains in eight minutes
on one core. Then images of 0.83 of 64 held-out captions are correct with guidance 2. See
docs/digit_scenes_models.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    base = cfg.load("digit_scenes_text2img")
    process = replace(base.diffusion.process, zero_terminal_snr=True)
    steps = 1000
    return replace(
        base,
        diffusion=cfg.Diffusion(process=process, prediction="v"),
        loop=replace(base.loop, steps=steps, checkpoint_every=steps, sample_every=steps),
    )
