"""What no shape in a CompVis single file tells: heads, noise schedule, latent scale, image size.

It comes from the file's own metadata if this project wrote it, from the settings it was trained
with (a YAML file), or from the published model of exactly these shapes; schedule and scale that
are stored in the file are checked against it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import bundle, known
from ldm_jax.convert.bundle import ConvertError
from ldm_jax.models.process import betas

METADATA = "ldm_jax.config"
PREDICTIONS = ("eps", "x0", "v")


@dataclass(frozen=True)
class Settings:
    """The rest of a model's description, and where it was found."""

    source: str
    num_heads: tuple[int, ...]
    diffusion: cfg.Diffusion
    latent_scale: float | None
    image_size: int


def of_metadata(
    metadata: Mapping[str, str], autoencoder: cfg.Autoencoder, unet: cfg.UNet,
    condition: cfg.Condition,
) -> tuple[Settings, cfg.Condition] | None:  # fmt: skip
    """What this project wrote into the file, and the condition with what shapes do not tell.

    Raises:
        ConvertError: it does not fit the tensors.
    """
    if METADATA not in metadata:
        return None
    model = cfg.from_json(metadata[METADATA])
    if not isinstance(model, cfg.Model):
        raise ConvertError(f"its metadata {METADATA} is no model")
    told = replace(
        model.unet, num_heads=unet.num_heads, dropout=unet.dropout
    ), bundle.bare(model.autoencoder)  # fmt: skip
    same = told == (unet, autoencoder) and type(model.condition) is type(condition)
    if not same:
        raise ConvertError(f"its metadata {METADATA} describes another model than its tensors")
    settings = Settings(
        "the file's metadata", model.unet.num_heads, model.diffusion,
        model.autoencoder.latent_scale, model.image_size,
    )  # fmt: skip
    return settings, model.condition


def of_yaml(path: Path, unet: cfg.UNet, autoencoder: cfg.Autoencoder) -> Settings:
    """What the settings `path`, CompVis' YAML file for the model, say.

    Raises:
        ConvertError: it is not such a file, lacks something, or is that of another model.
    """
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        params = document["model"]["params"]
        inner = params["unet_config"]["params"]
    except FileNotFoundError as error:
        raise ConvertError(f"--original_config={path}: there is no such file") from error
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError) as error:
        raise ConvertError(
            f"--original_config={path} is not the settings of a latent diffusion model: it lacks "
            f"or garbles model.params.unet_config.params ({type(error).__name__}: {error})"
        ) from error
    _check_same(path, inner, unet)
    start, end = params.get("linear_start", 1e-4), params.get("linear_end", 2e-2)
    kinds = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine"}
    kind = params.get("beta_schedule", "linear")
    prediction = params.get("parameterization", "eps")
    if kind not in kinds or prediction not in PREDICTIONS:
        raise ConvertError(
            f"--original_config={path}: beta_schedule {kind!r} and parameterization {prediction!r} "
            f"are not among {', '.join(kinds)} and {', '.join(PREDICTIONS)}"
        )
    side = params.get("image_size", inner.get("image_size"))
    if not isinstance(side, int):
        raise ConvertError(f"--original_config={path}: model.params.image_size is {side!r}")
    return Settings(
        str(path),
        _heads(path, inner, unet.block_out_channels),
        cfg.Diffusion(
            cfg.Discrete(
                params.get("timesteps", 1000), kinds[kind], beta_start=float(start),
                beta_end=float(end),
            ),
            prediction, spacing="leading", final_alpha_bar="first",
        ),
        None if params.get("scale_by_std") else float(params.get("scale_factor", 1.0)),
        side * autoencoder.factor,
    )  # fmt: skip


def _check_same(path: Path, inner: Mapping[str, Any], unet: cfg.UNet) -> None:
    first = inner.get("model_channels", 0)
    widths = tuple(first * multiple for multiple in inner.get("channel_mult", ()))
    if widths != unet.block_out_channels or inner.get("num_res_blocks") != unet.layers_per_block:
        raise ConvertError(
            f"--original_config={path} is of another model: its U-Net has the widths {widths} and "
            f"{inner.get('num_res_blocks')} blocks a level, the file's {unet.block_out_channels} "
            f"and {unet.layers_per_block}"
        )
    if inner.get("use_new_attention_order"):
        raise ConvertError(
            f"--original_config={path}: use_new_attention_order is true; of the older attention "
            "only the usual order of channels is supported"
        )


def _heads(path: Path, inner: Mapping[str, Any], widths: tuple[int, ...]) -> tuple[int, ...]:
    """CompVis: a number of channels for each head, or of heads; -1 is neither."""
    channels, heads = inner.get("num_head_channels", -1), inner.get("num_heads", -1)
    if channels != -1 and all(width % channels == 0 for width in widths):
        return tuple(width // channels for width in widths)
    if channels == -1 and heads != -1:
        return (heads,) * len(widths)
    raise ConvertError(
        f"--original_config={path}: num_heads {heads} and num_head_channels {channels} do not "
        f"divide the widths {widths}"
    )


def of_known(
    autoencoder: cfg.Autoencoder, unet: cfg.UNet, condition: cfg.Condition, prediction: str | None
) -> Settings:
    """What is published for a model of these shapes.

    Raises:
        ConvertError: there is none, or several that differ in what they predict.
    """
    wanted = PREDICTIONS if prediction is None else (prediction,)
    found = known.find(autoencoder, unet, condition, wanted)
    any_prediction = found or known.find(autoencoder, unet, condition, PREDICTIONS)
    if len({model.diffusion.prediction for _, model in found}) > 1:
        listed = ", ".join(f"{name}: {model.diffusion.prediction}" for name, model in found)
        raise ConvertError(
            "the tensors do not tell what the network predicts; say it with --prediction=eps or "
            f"--prediction=v. Published models of these shapes: {listed}"
        )
    if not any_prediction:
        raise ConvertError(
            "this is no published architecture, and its tensors do not tell the number of "
            "attention heads, the noise schedule and the latent scale; give the settings it was "
            "trained with: --original_config=FILE.yaml"
        )
    name, model = any_prediction[0]
    return Settings(
        f"the published {name}", model.unet.num_heads, model.diffusion,
        model.autoencoder.latent_scale, model.image_size,
    )  # fmt: skip


def stored_schedule(
    tensors: Mapping[str, np.ndarray], told: cfg.Diffusion
) -> tuple[cfg.Diffusion, bool]:
    """The schedule of the file's `betas` and `alphas_cumprod`, and whether there are any.

    They are compared in float32, the precision they are stored in: `told` if that fits, else
    whichever of this project's formulas does, and if none does, they are the given betas.

    Raises:
        ConvertError: they are no betas at all, each between 0 and 1.
    """
    stored = tensors.get("betas")
    if stored is None and (products := tensors.get("alphas_cumprod")) is not None:
        products = np.asarray(products, np.float64)
        stored = 1 - products / np.concatenate([[1.0], products[:-1]])
    if stored is None:
        return told, False
    stored = np.asarray(stored, np.float64)
    # alphas_cumprod in float32 leaves 1e-7 of 1; float16 files keep three digits.
    dtype = next(t.dtype for n in ("betas", "alphas_cumprod") if (t := tensors.get(n)) is not None)
    error = {"absolute": 2e-7, "relative": 1e-5}
    if dtype.itemsize == 2:
        error = {"absolute": 1e-4, "relative": 1e-2}
    ends = tuple(float(f"{end:.5g}") for end in (stored[0], stored[-1]))
    candidates = [told.process]
    for kind in ("scaled_linear", "linear", "cosine"):
        if 0 < ends[0] <= ends[1] < 1:
            candidates.append(cfg.Discrete(len(stored), kind, ends[0], ends[1]))
    for candidate in candidates:
        if candidate.num_timesteps != len(stored):
            continue
        formula = betas(candidate)
        if np.allclose(stored, formula, rtol=error["relative"], atol=error["absolute"]):
            return replace(told, process=candidate), True
    try:
        given = cfg.Discrete(len(stored), "given", betas=tuple(stored.tolist()))
        return replace(told, process=given), True
    except cfg.ConfigError as wrong:
        raise ConvertError(
            f"the noise schedule stored in the file ({len(stored)} betas from {stored[0]:.6g} to "
            f"{stored[-1]:.6g}) is none: {wrong}"
        ) from wrong


def metadata(model: cfg.Model) -> dict[str, str]:
    """What `of_metadata` reads."""
    return {METADATA: json.dumps(json.loads(cfg.to_json(model)))}
