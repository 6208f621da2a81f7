"""Small models with numbers in them, and files made of golden lists of names."""

import gzip
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.imported_model import Imported
from ldm_jax.formats.safetensors_file import write_safetensors

GOLDEN = Path(__file__).parent / "convert" / "golden"

AUTOENCODER = cfg.Autoencoder(block_out_channels=(32, 32), layers_per_block=1, latent_scale=0.18215)
CODEBOOK = replace(
    AUTOENCODER,
    bottleneck=cfg.VQ(12, weighting="legacy"),
    latent_scale=1.0,
    attention=(False, True),
)
CLIP = cfg.CLIPText(vocab_size=20, max_length=8, width=64, layers=2, num_heads=1, intermediate=64)
UNET = cfg.UNet(
    in_channels=4, out_channels=4,
    block_out_channels=(32, 64), layers_per_block=1, attention=(True, False), num_heads=(4, 4),
    context_dim=64,
)  # fmt: skip
PLAIN = replace(UNET, attention_kind="plain", context_dim=None, num_heads=(2, 4))
PROCESS = cfg.Diffusion(spacing="leading", final_alpha_bar="first")


TEXT = cfg.TextConditioner(CLIP, tokenizer="clip")


def _model(unet=UNET, *conditioners, autoencoder=AUTOENCODER, process=PROCESS) -> cfg.Model:
    return cfg.Model(autoencoder, unet, conditioners, process, 16)


MODELS = {
    "sd1": _model(UNET, TEXT),
    "sd2": _model(
        replace(UNET, use_linear_projection=True, num_heads=(1, 2)),
        cfg.TextConditioner(replace(CLIP, activation="gelu"), tokenizer="clip"),
        process=replace(PROCESS, prediction="v"),
    ),
    "inpainting": _model(
        replace(UNET, concat_channels=5), TEXT, cfg.InpaintingConditioner()
    ),
    "bert": _model(UNET, cfg.TextConditioner(
        cfg.BERTText(vocab_size=20, max_length=8, width=64, layers=1, num_heads=2),
        tokenizer="bert",
    )),
    "faces": _model(PLAIN, autoencoder=CODEBOOK),
    "churches": _model(replace(PLAIN, time_scale_shift=True, resblock_updown=True)),
    "class token": _model(UNET, cfg.ClassConditioner(4, context_dim=64)),
    "class": _model(replace(PLAIN, class_count=5), cfg.ClassConditioner(4)),
}  # fmt: skip
RGB = replace(AUTOENCODER, latent_channels=3)
SUPER_RESOLUTION = replace(PLAIN, in_channels=3, out_channels=3, concat_channels=3)
TASKS = {
    "upscaler": _model(
        replace(
            UNET, use_linear_projection=True, class_count=30, concat_channels=3,
            attention=(True, True), only_cross_attention=(True, False),
        ),
        cfg.TextConditioner(replace(CLIP, activation="gelu"), tokenizer="clip"),
        cfg.LowResConditioner(
            noise=cfg.NoiseAugmentation(cfg.Discrete(30, beta_start=1e-3, beta_end=0.03), 25, 20)
        ),
        autoencoder=replace(AUTOENCODER, latent_scale=0.08333),
        process=replace(PROCESS, prediction="v"),
    ),
    "super resolution": _model(
        SUPER_RESOLUTION, cfg.LowResConditioner(),
        autoencoder=replace(CODEBOOK, latent_channels=3),
    ),
    "inpainting alone": _model(
        replace(PLAIN, concat_channels=5), cfg.InpaintingConditioner("latent_diffusion")
    ),
    "class map": _model(
        replace(SUPER_RESOLUTION, concat_channels=2),
        cfg.ClassMapConditioner(cfg.ClassMaps(5, None), tuple("abcde"), 2), autoencoder=RGB,
    ),
    "edit": _model(replace(UNET, concat_channels=4), TEXT, cfg.EditConditioner()),
    "depth": _model(
        replace(UNET, use_linear_projection=True, concat_channels=1),
        cfg.TextConditioner(replace(CLIP, activation="gelu"), tokenizer="clip"),
        cfg.DepthConditioner(),
    ),
    "boxes": _model(UNET, cfg.LayoutConditioner(
        cfg.LayoutTokens(4, ("group",), 2, 5, 27), tuple("abcd"), width=64, layers=1, num_heads=2
    )),
}  # fmt: skip
IN_DIFFUSERS = [
    *(name for name in MODELS if not name.startswith("class")), "upscaler", "super resolution",
    "edit", "depth",
]  # fmt: skip


def numbers(config: cfg.Model | cfg.Autoencoder, dtype=np.float32) -> dict[str, Any]:
    """Random parameters for every component, each number another."""
    random = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: random.standard_normal(leaf.shape).astype(dtype), imported_model.shapes(config)
    )


def model(name: str, tokenizer: Path | None = None) -> Imported:
    config = (MODELS | TASKS)[name]
    return imported_model.make(config, numbers(config), tokenizer=tokenizer)


def make_tokenizer(folder: Path) -> Path:
    folder.mkdir()
    (folder / "vocab.json").write_text('{"a": 0}')
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


@cache
def golden(name: str) -> dict[str, Any]:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def original(name: str, path: Path, value=None) -> Path:
    """A safetensors file with the names and shapes that the original code has for `name`."""
    random = np.random.default_rng(0)
    tensors = {
        tensor: random.standard_normal(shape).astype(np.float32)
        for tensor, shape in golden("compvis_names")[name]["shapes"].items()
    }
    if golden("compvis_names")[name]["config"].get("repeats"):
        first = {t.replace("first_stage", "cond_stage"): t for t in tensors}
        tensors |= {t: tensors[first[t]] for t in tensors if t.startswith("cond_stage_model.")}
    if "betas" in tensors:
        from ldm_jax.diffusion.schedules import betas

        ends = golden("compvis_names")[name]["config"]["betas"]
        noise = betas("scaled_linear", 1000, *ends)
        tensors["betas"] = noise.astype(np.float32)
        tensors["alphas_cumprod"] = np.cumprod(1 - noise).astype(np.float32)
    if "scale_factor" in tensors:
        tensors["scale_factor"] = np.asarray(0.5, np.float32)
    write_safetensors(path, tensors | (value or {}))
    return path


def settings(name: str, path: Path, **changes: Any) -> Path:
    """The YAML file that the original code was given for `name`."""
    config = golden("compvis_names")[name]["config"]
    params = {
        "linear_start": config["betas"][0], "linear_end": config["betas"][1], "timesteps": 1000,
        "image_size": config["unet"]["image_size"], "unet_config": {"params": config["unet"]},
        "scale_by_std": config.get("scale_by_std", False),
        "cond_stage_config": {"params": config.get("boxes", config.get("class_map", {}))},
    } | changes  # fmt: skip
    path.write_text(json.dumps({"model": {"params": params}}))  # JSON is YAML
    return path
