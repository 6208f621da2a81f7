"""Stage one on DigitScenes at 32 px, f = 4, with a codebook of moving averages, then a
discriminator.

    python train.py --config=configs/digit_scenes_vq_f4.py --workdir=runs/vq_f4

About 4 minutes of one core. Without the discriminator (`--loss.adversarial.start=600`) 25.2 dB on
held-out scenes, with it 25.6 dB; all 256 codes are used, of which plain VQ uses 11 %
(`--autoencoder.bottleneck.ema_decay=None --autoencoder.bottleneck.revive_after=None`). See
docs/first_stage.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    kl = cfg.load("digit_scenes_kl_f4")
    vectors = cfg.VQ(size=256, ema_decay=0.99, revive_after=20)
    discriminator = replace(kl.loss.adversarial, learning_rate=5e-4)
    return replace(
        kl,
        autoencoder=replace(kl.autoencoder, bottleneck=vectors),
        loss=replace(kl.loss, kl_weight=cfg.AutoencoderLoss().kl_weight, adversarial=discriminator),
    )
