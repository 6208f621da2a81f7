"""VQGAN's second stage: a transformer over codes of DigitScenes at 32 px, 8 x 8 of 256 codes.

    python train.py --config=configs/digit_scenes_vq_f4.py --workdir=runs/vq_f4
    python train.py --config=configs/digit_scenes_codes.py --workdir=runs/codes \
        --first_stage=runs/vq_f4
    python -m ldm_jax.cli.sample_codes --model=runs/codes --num=16 --out=runs/codes/samples

On held-out scenes it needs 4.29 bits for a code, where equally likely codes would need 8. See
docs/code_transformer.md.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config() -> cfg.CodeTransformerRun:
    images = cfg.load("digit_scenes_vq_f4").data
    steps = 2000
    return cfg.CodeTransformerRun(
        data=replace(images, batch_size=32),
        transformer=cfg.CodeTransformer(
            layers=4, width=128, num_heads=4, embedding_dropout=0.1, residual_dropout=0.1,
            attention_dropout=0.1,
        ),
        optim=cfg.Optim(
            learning_rate=1e-3, schedule="cosine", warmup_steps=100, beta2=0.95,
            weight_decay=0.01, ema_decay=0.99,
        ),
        loop=cfg.Loop(
            steps=steps, log_every=20, checkpoint_every=500, validate_every=250,
            validation_batches=8, sample_every=500,
        ),
    )  # fmt: skip
