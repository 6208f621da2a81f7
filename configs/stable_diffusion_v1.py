"""Stable Diffusion 1.5 on your own captioned images at 512 px: U-Net of 859,520,964 parameters.

    python train.py --config=configs/stable_diffusion_v1.py --workdir=runs/sd \
        --first_stage=runs/sd_autoencoder --data.source.path=FOLDER

FOLDER is a folder of images with captions (docs/train.md, "Your images"); runs/sd_autoencoder comes
from configs/stable_diffusion_autoencoder.py. CLIP's text encoder (123,060,480 parameters) is
trained from scratch together with the U-Net, with a tokenizer made from FOLDER's captions.
Parameters, EMA and AdamW's moments take 15.7 GB in total, split over 16 devices (`mesh.fsdp`). The
number of devices must be a multiple of 16; otherwise override `mesh.fsdp`. The batch size is 8
images for each of 256 chips; with fewer set `--data.batch_size` or use gradient accumulation
(`--optim.accumulation`). `python -m benchmarks.pods` compiles it for TPU pods and prints memory and
FLOPs. We have not trained this config to the end.
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
