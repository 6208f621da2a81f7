"""Train a hypernetwork of the web UI's kind beside any text-to-image model, on a folder of images.

    python train.py --config=hypernetwork --init=MODEL --workdir=runs/mine \
        --data.source.path=FOLDER

MODEL is whatever `python -m ldm_jax.convert` reads; it stays as it is. `python sample.py
--model=MODEL --hypernetwork runs/mine:0.8` draws with it, and `python -m
ldm_jax.convert.hypernetworks runs/mine mine.pt` writes the file that the web UI reads.
Learning rates above 5e-5 often end in noise.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config(init: cfg.Model) -> cfg.DiffusionRun:
    return cfg.DiffusionRun(
        data=cfg.Data(
            cfg.ImageFolder(crop="random", validation_fraction=0.0), init.image_size, batch_size=4
        ),
        conditioners=tuple(
            replace(part, dropout=0.1) if isinstance(part, cfg.TextConditioner) else part
            for part in init.conditioners
        ),
        unet=init.unet,
        diffusion=init.diffusion,
        train=("adapter",),
        adapter=cfg.Hypernetwork(),
        objective=cfg.Objective(distance="l2"),
        optim=cfg.Optim(learning_rate=1e-5, weight_decay=1e-2, ema_decay=None),
        loop=cfg.Loop(
            steps=2000, checkpoint_every=500, validate_every=500, sample_every=500, remat=True
        ),
    )  # fmt: skip
