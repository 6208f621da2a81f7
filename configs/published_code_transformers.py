"""The published transformers over codes (Esser 2021) of faces and of ImageNet's classes, by --name.

    python train.py --config=configs/published_code_transformers.py --name=cin \
        --workdir=runs/cin --first_stage=MODEL --data.source.path=FOLDER

Names are ffhq, celebahq and cin (ImageNet's 1000 classes, the folder's subfolders). `--first_stage`
is one of 16 x 16 codes: f = 16, with 1024 codes for faces and 16384 for ImageNet, such as vq-f16 of
published_first_stages.py. The published learning rate is 4.5e-6 times the batch size. See
docs/code_transformer.md for all published shapes.
"""

from typing import Literal

from ldm_jax import config as cfg
from ldm_jax.config.published import CODE_TRANSFORMERS

BATCH = 64
NAMES = ("ffhq", "celebahq", "cin")


def get_config(name: Literal[NAMES]) -> cfg.CodeTransformerRun:
    """The transformer of that name."""
    return cfg.CodeTransformerRun(
        data=cfg.Data(source=cfg.ImageFolder(), image_size=256, batch_size=BATCH, workers=8),
        transformer=CODE_TRANSFORMERS[name],
        condition=cfg.ClassPrefix(num_classes=1000) if name == "cin" else None,
        sampling=cfg.CodeSampling(top_k=250),
        optim=cfg.Optim(
            learning_rate=4.5e-6 * BATCH, beta2=0.95, weight_decay=0.01, clip_norm=None,
            ema_decay=None,
        ),
        loop=cfg.Loop(
            steps=300_000, log_every=100, checkpoint_every=5000, validate_every=5000,
            sample_every=5000, dtype="bfloat16", remat=True,
        ),
    )  # fmt: skip
