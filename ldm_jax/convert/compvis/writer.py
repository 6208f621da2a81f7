"""CompVis' single files, written."""

from pathlib import Path

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, state_dicts
from ldm_jax.convert.compvis import components, keys, settings
from ldm_jax.convert.compvis.components import Kind, Tensors, places_of
from ldm_jax.convert.imported_model import Dtype, Imported
from ldm_jax.convert.model_folders import check_file
from ldm_jax.convert.normalization import folded
from ldm_jax.convert.obstacles import differing, named, of_first_stage, of_unscaled, refuse
from ldm_jax.core.stores import as_path
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.models.process import betas


def write_checkpoint(
    imported: Imported, path: str | Path, *, dtype: Dtype = None, overwrite: bool = False
) -> Imported:
    """Writes one `.safetensors` file of CompVis' layout, with our config in its metadata; returns
    the model as it was written.

    Raises:
        ConvertError: the model has something that such files cannot hold, or `path` exists.
    """
    path = as_path(path)
    check_file(path, overwrite)
    refuse(obstacles(imported.config))
    imported = folded(imported)
    config = imported.config
    if isinstance(config, cfg.Autoencoder):
        params = state_dicts.to_torch(imported.frozen["autoencoder"])
        out = keys.write(params, keys.autoencoder_places(params, config))
        metadata = {"format": "pt"}
    else:
        out, metadata = _written(imported, config)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {"scale_factor", *_TABLES, *(keys.LOW_RES + table for table in _TABLES)}
    out = {n: t if n in kept else imported_model.stored(t, dtype) for n, t in out.items()}
    write_safetensors(path, out, metadata)
    return imported


def _written(imported: Imported, config: cfg.Model) -> tuple[Tensors, dict[str, str]]:
    kind = _kind_of(config)
    places = places_of(config, kind)
    prefixes = {"unet": keys.UNET, "autoencoder": keys.FIRST_STAGE}
    if kind is not None:
        prefixes[components.encoder_of(config).name] = kind.prefix
    out: Tensors = {}
    for name, part in imported.components().items():
        there = keys.write(state_dicts.to_torch(part), places[name])
        out |= {prefixes[name] + n: t for n, t in there.items()}
    out |= _schedule("", config.diffusion.process)
    low_res = cfg.find(config.conditioners, cfg.LowResConditioner)
    if low_res is not None and low_res.noise is not None:
        out |= _schedule(keys.LOW_RES, low_res.noise.process)
    out["scale_factor"] = np.asarray(config.autoencoder.latent_scale, np.float32)
    return out, {"format": "pt"} | settings.metadata(config)


def _schedule(prefix: str, process: cfg.Discrete) -> Tensors:
    noise = betas(process)
    products = np.cumprod(1 - noise)
    tables = (noise, products, np.append(1.0, products[:-1]))
    return {prefix + n: t.astype(np.float32) for n, t in zip(_TABLES, tables, strict=True)}


_TABLES = ("betas", "alphas_cumprod", "alphas_cumprod_prev")


def obstacles(config: cfg.Model | cfg.Autoencoder) -> list[str]:
    """What of a model, or of a first stage alone, such files cannot hold."""
    if isinstance(config, cfg.Autoencoder):
        return _of_autoencoder(config)
    unet, conditioners, process = config.unet, [], []
    if not _has_conditioners(config.conditioners):
        conditioners = [
            f"conditioners are {named(config.conditioners)}, where {_OTHERS} have text, a class, "
            "boxes, a class map, a low-resolution image (beside text: with noise), a masked image "
            "(beside text in Stable Diffusion's form, alone in that of latent diffusion) or, "
            "beside text, a picture to edit or depth"
        ]
    if not isinstance(config.diffusion.process, cfg.Discrete):
        process = [
            f"diffusion.process is a {type(config.diffusion.process).__name__}, where {_OTHERS} "
            "have discrete betas"
        ]
    return [
        *_of_autoencoder(config.autoencoder),
        *differing(_OTHERS, [("unet.patch_size", unet.patch_size, 1),
                             ("unet.norm_num_groups", unet.norm_num_groups, 32),
                             ("unet.pooled_dim", unet.pooled_dim, None)]),
        *conditioners, *of_unscaled(config), *_of_encoder(components.encoder_of(config)), *process,
    ]  # fmt: skip


_OTHERS = "CompVis' files"


def _has_conditioners(conditioners: tuple[cfg.Conditioner, ...]) -> bool:
    """Whether there is code of CompVis that gives a U-Net these conditions."""
    match conditioners:
        case () | (cfg.TextConditioner() | cfg.ClassConditioner() | cfg.ClassMapConditioner(),):
            return True
        case (cfg.LowResConditioner(noise=None),):
            return True
        case (cfg.LayoutConditioner(box_map_channels=None),):
            return True
        case (cfg.InpaintingConditioner(form="latent_diffusion"),):
            return True
        case (cfg.TextConditioner(), cfg.InpaintingConditioner(form="stable_diffusion")):
            return True
        case (cfg.TextConditioner(), cfg.LowResConditioner(noise=cfg.NoiseAugmentation())):
            return True
        case (cfg.TextConditioner(), cfg.EditConditioner() | cfg.DepthConditioner()):
            return True
    return False


def _of_autoencoder(config: cfg.FirstStage) -> list[str]:
    groups = getattr(config, "norm_num_groups", 32)
    return [
        *of_first_stage(config, _OTHERS),
        *differing(_OTHERS, [("autoencoder.norm_num_groups", groups, 32)]),
    ]


def _of_encoder(conditioner: components.Encoder | None) -> list[str]:
    match conditioner:
        case cfg.LayoutConditioner(head_dim=channels):
            return differing(_OTHERS, [("layout_encoder.head_dim", channels, 64)])
        case cfg.TextConditioner(encoder=cfg.BERTText() as encoder):
            return differing(_OTHERS, [("text_encoder.head_dim", encoder.head_dim, 64)])
        case cfg.TextConditioner(encoder=cfg.CLIPText() as encoder):
            wanted = encoder.width // 64
            return differing(_OTHERS, [("text_encoder.num_heads", encoder.num_heads, wanted)])
        case cfg.TextConditioner(encoder=encoder):
            return [f"the text encoder is a {type(encoder).__name__}, which {_OTHERS} do not have"]
    return []


def _kind_of(config: cfg.Model) -> Kind | None:
    match components.encoder_of(config):
        case cfg.ClassConditioner():
            return components.CLASSES
        case cfg.ClassMapConditioner():
            return components.CLASS_MAP
        case cfg.LayoutConditioner():
            return components.LAYOUT
        case cfg.TextConditioner(encoder=cfg.BERTText()):
            return components.BERT
        case cfg.TextConditioner(encoder=cfg.CLIPText() as encoder):
            quick = encoder.activation == "quick_gelu"
            return components.CLIP if quick else components.OPEN_CLIP
    return None
