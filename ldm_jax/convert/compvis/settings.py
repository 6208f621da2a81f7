"""What no shape in a CompVis single file tells: heads, noise schedule, latent scale, image size.

It comes from the file's own metadata if this project wrote it, from the settings it was trained
with (a YAML file), or from the published model of exactly these shapes; schedule and scale that
are stored in the file are checked against it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import ml_dtypes
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.config import published_models
from ldm_jax.convert import imported_model, recognition
from ldm_jax.convert.imported_model import DTYPES, ConvertError
from ldm_jax.core.reading import parse_json
from ldm_jax.models.process import betas

METADATA = "ldm_jax.config"
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
    found = recognition.find(autoencoder, unet, conditioners, wanted)
    any_prediction = found or recognition.find(autoencoder, unet, conditioners, PREDICTIONS)
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
