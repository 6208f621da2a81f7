"""Train a LoRA, or a relative, of any text-to-image model on a folder of images with captions.

    python train.py --config=finetune_lora --init=MODEL --workdir=runs/mine \
        --data.source.path=FOLDER

MODEL is whatever `python -m ldm_jax.convert` reads; it stays as it is. Other kinds:
--adapter.kind=LoHa, LoKr, IA3 or FullDifference; --adapter.magnitude makes a LoRA a DoRA. Which
modules: --adapter.modules attention text_encoder. `python sample.py --model=runs/mine` draws with
it, --lora=runs/mine:0.8 at another strength or on another model, and `python -m
ldm_jax.convert.adapters runs/mine mine.safetensors` writes the file that other programs read.
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
        adapter=cfg.ModuleAdapter(cfg.LoRA(rank=16), modules=("attention",)),
        objective=cfg.Objective(distance="l2"),
        optim=cfg.Optim(learning_rate=1e-4, weight_decay=1e-2, ema_decay=None),
        loop=cfg.Loop(
            steps=1000, checkpoint_every=250, validate_every=250, sample_every=250, remat=True
        ),
    )  # fmt: skip
