"""The published transformers over codes (Esser 2021), by --name.

    python train.py --config=configs/published_code_transformers.py --name=cin \
        --workdir=runs/cin --first_stage=MODEL --data.source.path=FOLDER

Names are ffhq and celebahq (faces), faceshq (faces and where in the picture they are), cin
(ImageNet's 1000 classes, the folder's subfolders), drin (depth, --data.source.depth_maps), and
sflckr, coco and ade20k (182, 183 and 151 classes, --data.source.class_maps). `--first_stage` is one
of 16 x 16 codes: f = 16, with as many codes as the transformer, such as vq-f16 of
published_first_stages.py for cin; `--condition_stage` is the same of depth or class maps. The
published learning rate is 4.5e-6 times the batch size. See docs/code_transformer.md for all
published shapes.
"""

from typing import Literal

from ldm_jax import config as cfg
from ldm_jax.config.published import CODE_TRANSFORMERS

BATCH = 64
CONDITIONS = {
    "ffhq": None, "celebahq": None, "faceshq": cfg.CoordinatePrefix(),
    "cin": cfg.ClassPrefix(num_classes=1000), "drin": cfg.DepthPrefix(),
    "sflckr": cfg.ClassMapPrefix(cfg.ClassMaps(182, ignore=None)),
    "coco": cfg.ClassMapPrefix(cfg.ClassMaps(183, ignore=255, shift=1)),
    "ade20k": cfg.ClassMapPrefix(cfg.ClassMaps(151, ignore=None)),
}  # fmt: skip
NAMES = tuple(CONDITIONS)


def get_config(name: Literal[NAMES]) -> cfg.CodeTransformerRun:
    """The transformer of that name."""
    return cfg.CodeTransformerRun(
        data=cfg.Data(source=cfg.ImageFolder(), image_size=256, batch_size=BATCH, workers=8),
        transformer=CODE_TRANSFORMERS[name],
        condition=CONDITIONS[name],
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
