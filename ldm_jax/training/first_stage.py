"""The autoencoder that a run builds on: read from any model, and kept in the work directory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert.imported_model import NOT_NORMALIZED, normalization
from ldm_jax.convert.parts import FirstStage, read_first_stage
from ldm_jax.core.output import say
from ldm_jax.data.sources import Source
from ldm_jax.training.latent_statistics import IMAGES, LatentStatistics, measure_latents
from ldm_jax.training.latents import check_encoder
from ldm_jax.workdir.frozen import save_first_stage


def open_first_stage(workdir: Path, first_stage: str | None) -> FirstStage:
    """The first stage of whatever model `first_stage` names, for a new run in `workdir`.

    Raises:
        cfg.ConfigError: none is named.
        ConvertError, FileFormatError, FileNotFoundError: as `convert.load`.
    """
    if first_stage is None:
        raise cfg.ConfigError(
            f"{workdir} needs a trained first stage: name one with --first_stage=MODEL"
        )
    return read_first_stage(first_stage)


def keep_first_stage(
    run: cfg.DiffusionRun | cfg.ClassifierRun,
    train: Source,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    stage: FirstStage,
) -> None:
    """Writes the first stage's parameters into `workdir`, with how its latents are normalised.

    What neither its config nor its model says of that is measured, on the devices of `mesh`.

    Raises:
        cfg.ConfigError: `train` holds latents of another encoder, or the latents cannot be
            normalised.
    """
    check_encoder(train, stage.params)
    config, told = stage.config, ""
    found: dict[str, Any] = normalization(config)
    if getattr(run, "latent_normalization", "scale") == "per_channel" and not config.latent_mean:
        statistics = measure_latents(stage, run, train, mesh, IMAGES)
        found = _per_channel(statistics)
        told = f"{statistics.told()}; each channel is normalised by its own"
        if config.latent_scale is not None:
            told += f", not by the scale {config.latent_scale:.4g} of {stage.name}"
            config = replace(config, **NOT_NORMALIZED)
    elif not found:
        # Rombach 2022, appendix G.
        statistics = measure_latents(stage, run, train, mesh)
        found = {"latent_scale": np.float32(1 / statistics.std)}
        told = f"{statistics.told()}; all are multiplied by the scale"
    else:
        channels = ", and mean and deviation of each channel" if config.latent_mean else ""
        told = f"scale {config.latent_scale:.4g}{channels}, as {stage.name} says"
    if jax.process_index() == 0:
        say(f"latents: {told}")
        save_first_stage(workdir, config, stage.params, found)


def _per_channel(statistics: LatentStatistics) -> dict[str, Any]:
    """What a frozen first stage has where each channel is normalised.

    Raises:
        cfg.ConfigError: a channel is the same everywhere.
    """
    still = np.flatnonzero(statistics.channel_std < 1e-6 * statistics.std)
    if still.size:
        raise cfg.ConfigError(
            f"latent_normalization is 'per_channel', but channel {still[0]} of the latents is "
            "constant and cannot be normalised; use --latent_normalization=scale"
        )
    return {
        "latent_scale": np.float32(1.0),
        "latent_mean": statistics.channel_mean.astype(np.float32),
        "latent_std": statistics.channel_std.astype(np.float32),
    }
