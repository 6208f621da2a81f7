"""Teach any text-to-image model a new word by new vectors alone (textual inversion).

    python train.py --config=textual_inversion --init=MODEL --workdir=runs/word \
        --data.source.path=FOLDER --adapter.words sks --adapter.init_text=dog

FOLDER has the pictures; they need no captions (--adapter.captions=style for styles, own for your
captions with the word in them). MODEL is whatever `python -m ldm_jax.convert` reads, with a text
encoder; nothing of it changes. `python sample.py --model=MODEL --embeddings runs/word
--prompt="a photo of sks"` draws with the word, and `python -m ldm_jax.convert.embeddings runs/word
word.safetensors` writes the file that other programs read.

The rate is diffusers' 5e-4 for each picture of a batch; there is no weight decay, which would pull
the vectors to zero, and no clipping.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config(init: cfg.Model) -> cfg.DiffusionRun:
    source = cfg.ImageFolder(crop="random", flip=True, validation_fraction=0.0)
    return cfg.DiffusionRun(
        data=cfg.Data(source, init.image_size, batch_size=4),
        conditioners=tuple(
            replace(part, dropout=0.0) if isinstance(part, cfg.TextConditioner) else part
            for part in init.conditioners
        ),
        unet=init.unet,
        diffusion=init.diffusion,
        train=("adapter",),
        adapter=cfg.TextualInversion(),
        objective=cfg.Objective(distance="l2"),
        optim=cfg.Optim(learning_rate=2e-3, weight_decay=0.0, clip_norm=None, ema_decay=None),
        loop=cfg.Loop(
            steps=3000, checkpoint_every=500, validate_every=500, sample_every=500, remat=True
        ),
    )  # fmt: skip
