"""Train a ControlNet beside any text-to-image model, on a folder of images with captions.

    python train.py --config=controlnet --init=MODEL --workdir=runs/mine \
        --data.source.path=FOLDER

MODEL is whatever `python -m ldm_jax.convert` reads; it stays as it is. Hints are the edges of the
images, for which OpenCV must be installed (`pip install 'ldm_jax[edges]'`); or with
--adapter.hint=edit_images pictures of another folder, under the images' names:
--data.source.edit_images=HINTS. With --train adapter decoder the model's way up learns, too, which
wants a lower --optim.learning_rate=2e-6. `python sample.py --model=MODEL --control runs/mine --hint
canny:photo.png --prompt=…` draws with it, and `python -m ldm_jax.convert.controlnets runs/mine out
--model=MODEL` writes the folder that diffusers reads.
"""

from dataclasses import replace

from ldm_jax import config as cfg


def get_config(init: cfg.Model) -> cfg.DiffusionRun:
    return cfg.DiffusionRun(
        data=cfg.Data(
            cfg.ImageFolder(crop="random", validation_fraction=0.0), init.image_size, batch_size=4
        ),
        conditioners=tuple(
            replace(part, dropout=0.5) if isinstance(part, cfg.TextConditioner) else part
            for part in init.conditioners
        ),
        unet=init.unet,
        diffusion=init.diffusion,
        train=("adapter",),
        adapter=cfg.ControlNet(),
        objective=cfg.Objective(distance="l2"),
        optim=cfg.Optim(learning_rate=1e-5, weight_decay=1e-2, ema_decay=None),
        loop=cfg.Loop(
            steps=10_000, checkpoint_every=1000, validate_every=1000, sample_every=1000, remat=True
        ),
    )  # fmt: skip
