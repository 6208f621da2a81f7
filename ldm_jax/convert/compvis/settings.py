"""What no shape in a CompVis single file tells: heads, noise schedule, latent scale, image size.

It comes from the file's own metadata if this project wrote it, from the settings it was trained
with (a YAML file), or from the published model of exactly these shapes; schedule and scale that
are stored in the file are checked against it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, published_models
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import DTYPES, ConvertError
from ldm_jax.core.reading import FileFormatError, parse_json, read_text
from ldm_jax.models.process import betas

METADATA = "ldm_jax.config"
_YAML_SCHEDULES = {"linear": "scaled_linear", "sqrt_linear": "linear", "cosine": "cosine"}
_FLOATS = {*DTYPES.values(), np.dtype(np.float64)}
PREDICTIONS = ("eps", "x0", "v")
V_PREDICTION, ZERO_SNR = MARKERS = ("v_pred", "ztsnr")
"""Tensors without a use but to say, by their names, what the network predicts, and that the
schedule is rescaled to end in noise alone."""


@dataclass(frozen=True)
class Settings:
    """The rest of a model's description, and where it was found."""

    source: str
    num_heads: tuple[int, ...]
    only_cross_attention: tuple[bool, ...]
    conditioners: tuple[cfg.Conditioner, ...]
    diffusion: cfg.Diffusion
    latent_scale: float | None
    image_size: int


def of_metadata(
    metadata: Mapping[str, str], autoencoder: cfg.Autoencoder, unet: cfg.UNet,
    conditioners: tuple[cfg.Conditioner, ...],
) -> Settings | None:  # fmt: skip
    """What this project wrote into the file; None where it did not write it.

    Raises:
        ConvertError: it does not fit the tensors.
    """
    model = stored_model(metadata)
    if model is None:
        return None
    told, found = [
        (imported_model.unet_in_shapes(network), imported_model.architecture_of(first_stage),
         [type(part) for part in parts])
        for network, first_stage, parts in (
            (model.unet, model.autoencoder, model.conditioners), (unet, autoencoder, conditioners)
        )
    ]  # fmt: skip
    if told != found:
        raise ConvertError(f"its metadata {METADATA} describes another model than its tensors")
    return _of_model("the file's metadata", model)


def stored_model(metadata: Mapping[str, str]) -> cfg.Model | None:
    """The config that this project wrote into the file, if it did.

    Raises:
        ConvertError: it is not that of a model.
    """
    if METADATA not in metadata:
        return None
    parse_json("metadata", METADATA, metadata[METADATA])
    model = cfg.from_json(metadata[METADATA])
    if not isinstance(model, cfg.Model):
        raise ConvertError(f"its metadata {METADATA} is not a model's settings")
    return model


def _of_model(source: str, model: cfg.Model) -> Settings:
    return Settings(
        source, model.unet.num_heads, model.unet.only_cross_attention, model.conditioners,
        model.diffusion, model.autoencoder.latent_scale, model.image_size,
    )  # fmt: skip


def of_yaml(
    path: Path, unet: cfg.UNet, autoencoder: cfg.Autoencoder,
    conditioners: tuple[cfg.Conditioner, ...],
) -> Settings:  # fmt: skip
    """What the settings `path`, CompVis' YAML file for the model, say.

    Raises:
        ConvertError: it is not such a file, lacks something, or is that of another model.
    """
    document, inner = _params(path)
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
        params = Fields(path, _params(path)[0])
        return not _inner(params, "cond_stage_config").get("use_tokenizer", True)
    model = stored_model(metadata)
    return model is not None and cfg.find(model.conditioners, cfg.LayoutConditioner) is not None


def _params(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of the model and, of these, those of its U-Net.

    Raises:
        ConvertError: it is not the settings of a latent diffusion model.
    """
    document = _document(path)
    for name in ("model", "params"):
        document = document.get(name) if isinstance(document, dict) else None
    inner = document.get("unet_config") if isinstance(document, dict) else None
    inner = inner.get("params") if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        raise ConvertError(
            f"--original_config={path} is not the settings of a latent diffusion model: it has no "
            "model.params.unet_config.params"
        )
    return document, inner


def _document(path: Path) -> Any:
    import yaml

    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, FileFormatError):
            raise
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ConvertError(f"--original_config={path} is not YAML: {reason}") from error


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


def of_known(
    autoencoder: cfg.Autoencoder,
    unet: cfg.UNet,
    conditioners: tuple[cfg.Conditioner, ...],
    prediction: str | None,
) -> Settings:
    """What is published for a model of these shapes.

    Raises:
        ConvertError: there is none, or several that differ in what they predict.
    """
    wanted = PREDICTIONS if prediction is None else (prediction,)
    found = published_models.find(autoencoder, unet, conditioners, wanted)
    any_prediction = found or published_models.find(autoencoder, unet, conditioners, PREDICTIONS)
    if len({model.diffusion.prediction for _, model in found}) > 1:
        listed = ", ".join(f"{name}: {model.diffusion.prediction}" for name, model in found)
        raise ConvertError(
            f"the tensors do not tell what the network predicts; {imported_model.CHOOSE}"
            f"--prediction=eps or --prediction=v. Published models of these shapes: {listed}"
        )
    if not any_prediction:
        raise ConvertError(
            "this is no published architecture, and its tensors do not tell the number of "
            "attention heads, the noise schedule and the latent scale; "
            f"{imported_model.CHOOSE}--original_config=FILE.yaml, the settings it was trained with"
        )
    name, model = any_prediction[0]
    return _of_model(f"the published {name}", model)


def to_zero_snr(diffusion: cfg.Diffusion) -> cfg.Diffusion:
    """A process that ends in noise alone, which only trailing steps begin with."""
    process = diffusion.process
    if not process.ends_in_noise:
        process = replace(process, zero_terminal_snr=True)
    return replace(diffusion, process=process, spacing="trailing")


def stored_schedule(
    tensors: Mapping[str, np.ndarray], told: cfg.Diffusion
) -> tuple[cfg.Diffusion, list[str]]:
    """`told` with the schedule that the file has, and a note where it is another; errors are those
    of `stored_process`."""
    process = stored_process(tensors, told.process)
    note = [] if process == told.process else ["the noise schedule is the file's own"]
    try:
        return replace(told, process=process), note
    except cfg.ConfigError as wrong:
        raise ConvertError(f"the file's own noise schedule does not fit: {wrong}") from wrong


def stored_process(tensors: Mapping[str, np.ndarray], told: cfg.Discrete) -> cfg.Discrete:
    """The schedule of `betas` or `alphas_cumprod`, `told` where there are none.

    It is compared in the precision it is stored in: `told` if that fits, else whichever published
    schedule does, else whichever formula of this project, with the ends that the numbers have; and
    if none does, it is the given betas.

    Raises:
        ConvertError: they are no betas at all, each between 0 and 1.
    """
    name = next((name for name in ("betas", "alphas_cumprod") if name in tensors), None)
    if name is None:
        return told
    stored = tensors[name]
    if stored.ndim != 1 or stored.size == 0 or stored.dtype not in _FLOATS:
        raise ConvertError(
            f"its {name} are not a noise schedule (a list of numbers) but "
            f"{stored.dtype}{list(stored.shape)}"
        )
    precision = ml_dtypes.finfo(stored.dtype)
    epsilon = float(precision.eps)
    numbers = np.asarray(stored, np.float64)
    noise = numbers
    if name == "alphas_cumprod":
        before = np.concatenate([[1.0], numbers[:-1]])
        noise = 1 - np.divide(numbers, before, out=np.zeros_like(numbers), where=before > 0)
    try:
        for process in _candidates(told, noise, epsilon):
            formula = betas(process)
            expected = formula if name == "betas" else np.cumprod(1 - formula)
            # Other programs compute in float32, whose errors add up in a product of a thousand.
            smallest = max(float(precision.smallest_subnormal), 1e-9)
            if np.allclose(numbers, expected, rtol=max(epsilon, 2e-5), atol=smallest):
                return process
        return cfg.Discrete(len(noise), "given", betas=tuple(noise.tolist()))
    except cfg.ConfigError as wrong:
        raise ConvertError(
            f"the noise schedule stored in the file ({len(noise)} {name} in {stored.dtype}, betas "
            f"from {noise[0]:.6g} to {noise[-1]:.6g}) is not a noise schedule: {wrong}"
        ) from wrong


def _candidates(told: cfg.Discrete, noise: np.ndarray, epsilon: float) -> Iterator[cfg.Discrete]:
    """Schedules that stored betas may be of, the likely ones first; each also rescaled."""
    digits = 5 if epsilon < 1e-4 else 3
    first, last = (float(f"{end:.{digits}g}") for end in (noise[0], noise[-1]))
    count = len(noise)
    fitted = [
        cfg.Discrete(count, kind, first, last)
        for kind in ("scaled_linear", "linear", "cosine")
        if 0 < first <= last < 1
    ]
    plain = [model.diffusion.process for model in published_models.MODELS.values()]
    for process in dict.fromkeys([told, *plain, *fitted]):
        if process.num_timesteps != count:
            continue
        yield process
        if not process.ends_in_noise and process.num_timesteps > 1:
            yield replace(process, zero_terminal_snr=True)


def metadata(model: cfg.Model) -> dict[str, str]:
    """What `of_metadata` reads."""
    return {METADATA: json.dumps(json.loads(cfg.to_json(model)))}
