"""The YAML settings that CompVis trained a model with, for what its shapes do not tell."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.compvis.settings import PREDICTIONS, Settings, stored_model
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import FileFormatError, read_text

_YAML_SCHEDULES = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine"}


def of_yaml(
    path: Path, unet: cfg.UNet, autoencoder: cfg.Autoencoder,
    conditioners: tuple[cfg.Conditioner, ...],
) -> Settings:  # fmt: skip
    """What the settings `path`, CompVis' YAML file for the model, say.

    Raises:
        ConvertError: it is not such a file, lacks something, or is that of another model.
    """
    document, inner = params_of(path)
    params, network = Fields(path, document), Fields(path, inner)
    _check_same(path, network, unet)
    if "image_size" not in params:
        params = Fields(path, {"image_size": network.get("image_size", None), **document})
    process = _schedule(params)
    prediction = params.choice("parameterization", "eps", {name: name for name in PREDICTIONS})
    measured = params.get("scale_by_std", False)
    return Settings(
        str(path), _heads(network, unet.block_out_channels), _only_cross(network, unet),
        _conditioners(params, conditioners, autoencoder.factor),
        cfg.Diffusion(process, prediction, spacing="ddim_uniform", final_alpha_bar="first"),
        None if measured else params.number("scale_factor", 1.0),
        params.whole("image_size") * autoencoder.factor,
    )  # fmt: skip


def _schedule(params: Fields) -> cfg.Discrete:
    return cfg.Discrete(
        params.whole("timesteps", 1000),
        params.choice("beta_schedule", "linear", _YAML_SCHEDULES),
        beta_start=params.number("linear_start", 1e-4),
        beta_end=params.number("linear_end", 2e-2),
    )


def _only_cross(network: Fields, unet: cfg.UNet) -> tuple[bool, ...]:
    """On which levels attention is to the context alone, of those with attention."""
    if network.get("disable_middle_self_attn", False):
        raise network.error("disable_middle_self_attn", "false, the only value that is supported")
    listed = network.get("disable_self_attentions", None)
    if listed is None:
        return unet.only_cross_attention
    if not isinstance(listed, list) or len(listed) != len(unet.attention):
        raise network.error("disable_self_attentions", f"a list of {len(unet.attention)}")
    only = tuple(bool(one) and has for one, has in zip(listed, unet.attention, strict=True))
    only = only if any(only) else ()
    told = replace(unet, only_cross_attention=only)
    if imported_model.unet_in_shapes(told) != imported_model.unet_in_shapes(unet):
        raise network.error("disable_self_attentions", "that of the file, whose shapes differ")
    return only


def _conditioners(
    params: Fields, conditioners: tuple[cfg.Conditioner, ...], factor: int
) -> tuple[cfg.Conditioner, ...]:
    """`conditioners` with what the settings say of them."""
    stage = _inner(params, "cond_stage_config")
    told: list[cfg.Conditioner] = []
    for part in conditioners:
        match part:
            case cfg.ClassMapConditioner():
                halved = stage.get("n_stages", 1)
                if stage.get("multiplier", 0.5) != 0.5 or 2**halved != factor:
                    raise stage.error("n_stages", f"as many halvings as make {factor}")
            case cfg.LowResConditioner(noise=cfg.NoiseAugmentation()):
                levels = _inner(params, "low_scale_config")
                process = _schedule(_inner(levels, "noise_schedule_config"))
                trained = levels.whole("max_noise_level", process.num_timesteps)
                part = replace(part, noise=imported_model.noise_levels(process, trained))
        told.append(part)
    return tuple(told)


def _inner(fields: Fields, name: str) -> Fields:
    """What is below `name` and, where it names a class, its arguments."""
    found = fields.get(name, None)
    found = found if isinstance(found, dict) else {}
    inner = found.get("params", found)
    return Fields(fields.path, inner if isinstance(inner, dict) else {})


def is_layout(metadata: Mapping[str, str], path: Path | None) -> bool:
    """Whether the file's own settings, or the YAML file `path`, say that it draws boxes."""
    if path is not None:
        params = Fields(path, params_of(path)[0])
        return not _inner(params, "cond_stage_config").get("use_tokenizer", True)
    model = stored_model(metadata)
    return model is not None and cfg.find(model.conditioners, cfg.LayoutConditioner) is not None


def params_of(
    path: Path, network: str = "unet_config", what: str = "a latent diffusion model"
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the model in a YAML file, and of these those of its `network`.

    Raises:
        ConvertError: it is not the settings of `what`, or no YAML.
        FileFormatError: it cannot be read.
    """
    document = read_yaml(path, f"--original_config={path}")
    for name in ("model", "params"):
        document = document.get(name) if isinstance(document, dict) else None
    inner = document.get(network) if isinstance(document, dict) else None
    inner = inner.get("params") if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        raise ConvertError(
            f"--original_config={path} is not the settings of {what}: it has no "
            f"model.params.{network}.params"
        )
    return document, inner


def read_yaml(path: Path, where: str) -> Any:
    """What a YAML file holds; only plain values, nothing is built or run.

    Raises:
        ConvertError: `where` is no YAML.
        FileFormatError: it cannot be read.
    """
    import yaml

    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConvertError(f"{where} is not YAML: {reason}") from error


def _check_same(path: Path, network: Fields, unet: cfg.UNet) -> None:
    first = network.whole("model_channels")
    widths = tuple(first * multiple for multiple in network.wholes("channel_mult", ()))
    blocks = network.get("num_res_blocks", None)
    if widths != unet.block_out_channels or blocks != unet.layers_per_block:
        raise ConvertError(
            f"--original_config={path} is of another model: its U-Net has the widths {widths} and "
            f"{blocks} blocks a level, the file's {unet.block_out_channels} and "
            f"{unet.layers_per_block}"
        )
    if network.get("use_new_attention_order", False):
        raise ConvertError(
            f"--original_config={path}: use_new_attention_order is true; of the older attention "
            "only the usual order of channels is supported"
        )


def _heads(network: Fields, widths: tuple[int, ...]) -> tuple[int, ...]:
    """CompVis: a number of channels for each head, or of heads; -1 is neither."""
    channels, heads = network.get("num_head_channels", -1), network.get("num_heads", -1)
    whole = type(channels) is int and type(heads) is int
    if whole and channels > 0 and all(width % channels == 0 for width in widths):
        return tuple(width // channels for width in widths)
    if whole and channels == -1 and heads > 0:
        return (heads,) * len(widths)
    raise network.error(
        "num_heads", f"a number that divides the widths {widths}, or -1 with such num_head_channels"
    )
