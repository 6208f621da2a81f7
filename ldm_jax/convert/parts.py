"""Parts of any model by themselves, to encode with, to measure, or to begin a run with: its first
stage, its text encoder, its U-Net with the conditioners."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.loading import load, read_text_encoder
from ldm_jax.convert.widening import narrowed, widened, widening_note
from ldm_jax.core import tree


@dataclass(frozen=True)
class FirstStage:
    """An autoencoder with its parameters, float32 on the host."""

    config: cfg.Autoencoder
    params: dict[str, Any]
    latent_scale: float | None
    """What latents are multiplied by; None where training has yet to measure it."""
    name: str


@dataclass(frozen=True)
class InitialParams:
    """What a run of stage two begins with: parameters of another model, float32 on the host."""

    params: dict[str, Any]
    """`{"unet", "conditioners"}`, these by name, as stage two trains them."""
    tokenizer: Path | None
    """Folder with the tokenizer's files, or one `tokenizer.json`; None where there is none."""
    widening: str = ""
    """A line that says what was widened; empty where nothing was."""


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder with its parameters, float32 on the host, and its tokenizer's files."""

    config: cfg.TextConditioner
    params: dict[str, Any]
    tokenizer: Path | None
    """As that of `InitialParams`; a text encoder's folder by itself has none."""


def read_first_stage(path: str | Path, channels: int | None = 3, **choices: Any) -> FirstStage:
    """The first stage of a work directory, a native or diffusers folder, or a CompVis file, of a
    whole model or alone. `choices` are those of `load`.

    It must encode images, or something else of so many `channels`; None: of any number.

    Of an autoencoder's work directory come the averages where it keeps them, which stage two takes.

    Raises:
        ConvertError, FileFormatError, ConfigError, FileNotFoundError: as `load`.
    """
    imported = load(path, **choices)
    if isinstance(imported.autoencoder, cfg.Pixels):
        raise cfg.ConfigError(f"{path} has no first stage: that model works on pixels")
    found = imported.autoencoder.image_channels
    if channels not in (None, found):
        raise cfg.ConfigError(
            f"{path} has a first stage of {found} channels, where {channels} are needed: images "
            "have 3, depth 1, and class maps one for each class"
        )
    scale = imported.frozen.get("latent_scale")
    return FirstStage(
        config=imported.autoencoder,
        params=imported_model.materialize(imported.frozen["autoencoder"]),
        latent_scale=None if scale is None else float(scale),
        name=str(path),
    )


def first_stage_params(
    path: str | Path, config: cfg.Autoencoder, option: str = "--init"
) -> dict[str, Any]:
    """The parameters (numpy, float32) of the autoencoder in `path`, which `config` must describe.

    Of a work directory's they are the average, or the parameters themselves where none is kept.
    How a codebook was trained may differ: that is no part of what is loaded.

    Args:
        path: a work directory, or whatever else `load` reads.
        config: the autoencoder that they are for.
        option: what the user named `path` with, for errors.

    Raises:
        ConfigError, ValueError, OSError: no autoencoder in `path`, or another one; names the
            settings or parameters that differ.
    """
    source = f"{option}={path}"
    stored = read_first_stage(path, channels=None)
    found = stored.config
    same: dict[str, Any] = {name: getattr(found, name) for name in imported_model.NOT_NORMALIZED}
    if type(found.bottleneck) is type(config.bottleneck):
        same["bottleneck"] = found.bottleneck
    differing = cfg.differences(found, replace(config, **same))
    refuse_differing(differing, source, "autoencoder", "config.autoencoder")
    return fitting(imported_model.autoencoder_shapes(config), stored.params, source)


def initial_params(path: str | Path, config: cfg.Model, option: str = "--init") -> InitialParams:
    """The parameters of U-Net and conditioners of the model in `path`, whose networks `config`
    must describe.

    Of a work directory they are the averages, or the parameters themselves where none are kept.
    What a training run chooses may differ: the process and what is predicted, dropout, the first
    stage that the latents are of, how masks and small images are made. `config` may also have more
    conditioners, if they give channels beside the latents and nothing else: the U-Net is widened
    for them (`convert.widening`), and parameters of their own are left out.

    Args:
        path: a work directory, or whatever else `load` reads.
        config: the model that they are for.
        option: what the user named `path` with, for errors.

    Raises:
        ConfigError, ValueError, OSError: no diffusion model in `path`, or one of other networks;
            names the settings or parameters that differ.
    """
    source = f"{option}={path}"
    imported = load(path)
    if not isinstance(imported.config, cfg.Model):
        raise cfg.ConfigError(f"{source} holds a first stage alone, not a diffusion model")
    narrow = narrowed(config, imported.config)
    differing = [
        *cfg.differences(*(replace(of.unet, dropout=0.0) for of in (imported.config, narrow)),
                         "unet"),
        *cfg.differences(
            *(imported_model.conditioners_in_shapes(of.conditioners)
              for of in (imported.config, narrow)),
            "conditioners",
        ),
    ]  # fmt: skip
    refuse_differing(differing, source, "model", "the config's unet and conditioners")
    shapes = imported_model.shapes(narrow)
    shapes.pop("autoencoder", None)
    wanted = {"unet": shapes.pop("unet"), "conditioners": shapes}
    params = fitting(wanted, imported_model.materialize(imported.params), source)
    note = widening_note(narrow, config, source)
    if note:
        first = params["unet"]["conv_in"]
        first["kernel"] = widened(first["kernel"], narrow, config)
    return InitialParams(params, imported.tokenizer, note)


def model_config(path: str | Path, option: str = "--init") -> cfg.Model:
    """What the diffusion model in `path` is made of; `option` as in `initial_params`.

    Raises:
        ConfigError, ValueError, OSError: no such model in `path`.
    """
    config = load(path).config
    if not isinstance(config, cfg.Model):
        raise cfg.ConfigError(f"{option}={path} holds a first stage alone, not a diffusion model")
    return config


def text_encoder_params(
    path: str | Path, config: cfg.TextConditioner, option: str = "--text_encoder"
) -> TextEncoder:
    """The text encoder in `path`, which `config` must describe but for its dropout, and a
    sentence's length and pooling, which its parameters do not depend on.

    Args:
        path: whatever `load` reads, or the folder of a text encoder alone, as transformers saves
            it.
        config: the text encoder that the parameters are for.
        option: what the user named `path` with, for errors.

    Raises:
        ConfigError, ValueError, OSError: no text encoder in `path`, or another one; names the
            settings or parameters that differ.
    """
    source = f"{option}={path}"
    found, params, tokenizer = read_text_encoder(path, option)
    encoder = config.encoder
    if isinstance(encoder, cfg.SentenceBERT) and isinstance(found.encoder, cfg.SentenceBERT):
        found = replace(found, encoder=replace(
            found.encoder, max_length=encoder.max_length, pooling=encoder.pooling
        ))  # fmt: skip
    differing = cfg.differences(found, replace(config, dropout=found.dropout), config.name)
    refuse_differing(differing, source, "text encoder", "the config's text encoder")
    params = fitting(
        imported_model.conditioner_shapes(config), imported_model.materialize(params), source
    )
    return TextEncoder(config, params, tokenizer)


class OtherNetworks(cfg.ConfigError):
    """A model of other networks than are wanted; `listed` says which settings differ."""

    def __init__(self, message: str, listed: str) -> None:
        super().__init__(message)
        self.listed = listed


def refuse_differing(
    differing: list[tuple[str, Any, Any]], source: str, what: str, setting: str
) -> None:
    """Raises OtherNetworks, which names the settings that differ, where any do."""
    if differing:
        listed = "; ".join(
            f"{where} is {old!r} there, {new!r} here" for where, old, new in differing
        )
        raise OtherNetworks(
            f"{source} holds another {what} than this config's: {listed}. Set {setting} to what "
            "is there",
            listed,
        )


def fitting(shapes: Any, params: Any, source: str) -> dict[str, Any]:
    """`params` in the order of `shapes`, which must be theirs."""
    try:
        return tree.merge(shapes, params)
    except tree.TreeError as error:
        raise cfg.ConfigError(f"{source} does not fit this config: {error}") from error
