"""Stable Diffusion 1.5 on your own captioned images: U-Net 859,520,964 parameters, 512 px.

    python train.py --config=configs/stable_diffusion_v1.py --workdir=runs/sd \
        --first_stage=runs/sd_autoencoder --data.source.path=FOLDER

FOLDER is as in `ldm_jax.config.ImageFolder`; runs/sd_autoencoder is of
configs/stable_diffusion_autoencoder.py. CLIP's text encoder (123,060,480 parameters) is trained
along from scratch, on a tokenizer made of FOLDER's captions. Parameters, their average and
AdamW's moments take 15.7 GB in all; `mesh.fsdp` devices share them, so their number must be a
multiple of 16, or override it. The batch is 8 images for each of 256 chips; with fewer set
`--data.batch_size` or `--optim.accumulation`. `python -m benchmarks.pods` says what the TPU
compiler makes of it. Not trained to the end by us.
"""

from ldm_jax import config as cfg


def get_config() -> cfg.DiffusionRun:
    return cfg.DiffusionRun(
        data=cfg.Data(
            source=cfg.ImageFolder(path="images"), image_size=512, batch_size=2048, workers=8
        ),
        conditioners=(cfg.TextConditioner(encoder=cfg.CLIPText(), dropout=0.1),),
        unet=cfg.UNet(),
        diffusion=cfg.Diffusion(
            cfg.Discrete(schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
            prediction="eps", spacing="ddim_uniform", final_alpha_bar="first",
        ),
        optim=cfg.Optim(
            learning_rate=1e-4, warmup_steps=10_000, weight_decay=1e-2, ema_decay=0.9999
        ),
        loop=cfg.Loop(
            steps=500_000, log_every=100, checkpoint_every=5000, keep=2, validate_every=5000,
            sample_every=5000, dtype="bfloat16", remat=True,
        ),
        mesh=cfg.Mesh(data=-1, fsdp=16),
    )  # fmt: skip
