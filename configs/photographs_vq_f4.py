"""Stage one on crops of photographs, 64 px, f = 4, with a codebook and a critic.

    python train.py --config=configs/photographs_vq_f4.py --workdir=runs/photographs_vq_f4 \
        --data.source.path=FOLDER

Crops are taken from the photographs as large as they are, so that a few large ones serve. For
one GPU, or a night on a laptop.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.AutoencoderRun:
    return cfg.AutoencoderRun(
        data=cfg.Data(
            source=cfg.ImageFolder(resize="none", crop="random", flip=True),
            image_size=64, batch_size=16,
        ),
        autoencoder=cfg.Autoencoder(
            latent_channels=4,
            bottleneck=cfg.VQ(size=1024, ema_decay=0.99, revive_after=50),
            block_out_channels=(64, 128, 128), layers_per_block=1,
            norm_num_groups=16,
        ),
        loss=cfg.AutoencoderLoss(
            l1_weight=1.0, l2_weight=1.0,
            adversarial=cfg.Adversarial(weight=0.2, start=5000, layers=3),
        ),
        optim=cfg.Optim(
            learning_rate=5e-4, schedule="cosine", warmup_steps=200, beta1=0.5, beta2=0.9,
            ema_decay=0.999,
        ),
        loop=cfg.Loop(
            steps=20_000, log_every=50, checkpoint_every=1000, validate_every=1000,
            sample_every=1000,
        ),
    )  # fmt: skip
