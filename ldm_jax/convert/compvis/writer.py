"""CompVis' single files, written."""

from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import components, keys, settings
from ldm_jax.convert.compvis.components import Kind, Tensors, places_of
from ldm_jax.convert.imported_model import ConvertError, Dtype, Imported
from ldm_jax.convert.model_folders import check_place
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.models.process import betas


def write_checkpoint(
    imported: Imported, path: str | Path, *, dtype: Dtype = None, overwrite: bool = False
) -> None:
    """Writes one `.safetensors` file of CompVis' layout, with our config in its metadata.

    Raises:
        ConvertError: the model has something that such files cannot hold, or `path` exists.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ConvertError(f"{path}: a single file is written as safetensors; name it so")
    check_place(path)
    if path.exists() and not overwrite:
        raise ConvertError(f"{path} exists; choose another, or --overwrite")
    config = imported.config
    if isinstance(config, cfg.Autoencoder):
        _check_autoencoder(config)
        params = state_dicts.to_torch(imported.frozen["autoencoder"])
        out = keys.write(params, keys.autoencoder_places(params, config))
        metadata = {"format": "pt"}
    else:
        out, metadata = _written(imported, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"betas", "alphas_cumprod", "alphas_cumprod_prev", "scale_factor"}
    out = {n: t if n in kept else imported_model.stored(t, dtype) for n, t in out.items()}
    write_safetensors(path, out, metadata)


def _written(imported: Imported, config: cfg.Model) -> tuple[Tensors, dict[str, str]]:
    kind = _kind_of(config)
    _check_autoencoder(config.autoencoder)
    _check_unet(config.unet)
    places = places_of(config, kind)
    prefixes = {"unet": keys.UNET, "autoencoder": keys.FIRST_STAGE}
    if kind is not None:
        prefixes[components.encoder_of(config).name] = kind.prefix
    out: Tensors = {}
    for name, part in imported.components().items():
        there = keys.write(state_dicts.to_torch(part), places[name])
        out |= {prefixes[name] + n: t for n, t in there.items()}
    if not isinstance(config.diffusion.process, cfg.Discrete):
        raise ConvertError(
            f"diffusion.process is a {type(config.diffusion.process).__name__}, where CompVis' "
            "files have discrete betas; write the native form"
        )
    noise = betas(config.diffusion.process)
    products = np.cumprod(1 - noise)
    out["betas"] = noise.astype(np.float32)
    out["alphas_cumprod"] = products.astype(np.float32)
    out["alphas_cumprod_prev"] = np.append(1.0, products[:-1]).astype(np.float32)
    out["scale_factor"] = np.asarray(config.autoencoder.latent_scale, np.float32)
    return out, {"format": "pt"} | settings.metadata(config)


def _kind_of(config: cfg.Model) -> Kind | None:
    match components.encoder_of(config):
        case None:
            return None
        case cfg.ClassConditioner():
            return components.CLASSES
        case cfg.TextConditioner(encoder=cfg.BERTText() as encoder):
            _require("text_encoder.head_dim", encoder.head_dim, 64)
            return components.BERT
        case cfg.TextConditioner(encoder=cfg.CLIPText() as encoder):
            _require("text_encoder.num_heads", encoder.num_heads, encoder.width // 64)
            quick = encoder.activation == "quick_gelu"
            return components.CLIP if quick else components.OPEN_CLIP
        case cfg.TextConditioner(encoder=encoder):
            raise ConvertError(
                f"the text encoder is a {type(encoder).__name__}, which CompVis' files do not "
                "have; write the native form"
            )


def _check_autoencoder(config: cfg.FirstStage) -> None:
    imported_model.codebook_size(config, "CompVis' files")
    _require("autoencoder.patch_size", config.patch_size, 1)
    _require("autoencoder.norm_num_groups", config.norm_num_groups, 32)


def _check_unet(config: cfg.UNet) -> None:
    _require("unet.patch_size", config.patch_size, 1)
    _require("unet.norm_num_groups", config.norm_num_groups, 32)
    _require("unet.pooled_dim", config.pooled_dim, None)


def _require(field: str, value: Any, wanted: Any) -> None:
    if value != wanted:
        raise ConvertError(
            f"{field} is {value}, where CompVis' files have {wanted}; write the native form"
        )
