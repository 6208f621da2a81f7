"""The autoencoder that a run builds on: read from any model, and kept in the work directory."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax import config as cfg
from ldm_jax.convert.parts import FirstStage, read_first_stage
from ldm_jax.core.sharding import local_rows, to_global
from ldm_jax.data.loader import make_loader
from ldm_jax.data.sources import Source
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.latents import check_encoder, encoded_batch, posterior_noise
from ldm_jax.workdir.frozen import save_first_stage


def open_first_stage(workdir: Path, first_stage: str | None) -> FirstStage:
    """The first stage of whatever model `first_stage` names, for a new run in `workdir`.

    Raises:
        cfg.ConfigError: none is named.
        ConvertError, FileFormatError, FileNotFoundError: as `convert.load`.
    """
    if first_stage is None:
        raise cfg.ConfigError(
            f"{workdir} has no first stage yet: name a trained one with --first_stage=MODEL"
        )
    return read_first_stage(first_stage)


def keep_first_stage(
    run: cfg.DiffusionRun | cfg.ClassifierRun,
    train: Source,
    workdir: Path,
    mesh: jax.sharding.Mesh,
    stage: FirstStage,
) -> None:
    """Writes the first stage's parameters with its latent scale into `workdir`.

    A scale that neither its config nor its model says is measured, on the devices of `mesh`.

    Raises:
        cfg.ConfigError: `train` holds latents of another encoder.
    """
    check_encoder(train, stage.params)
    scale = stage.latent_scale or _measured_scale(stage, run, train, mesh)
    if jax.process_index() == 0:
        save_first_stage(workdir, stage.config, stage.params, scale)


def _measured_scale(
    stage: FirstStage,
    run: cfg.DiffusionRun | cfg.ClassifierRun,
    train: Source,
    mesh: jax.sharding.Mesh,
) -> float:
    """1 / std of the latents of the first global batch (Rombach 2022, appendix G).

    Each process sees its own rows; the mean over the global array makes all of them agree.
    """
    rows = local_rows(mesh, run.data.batch_size)
    loader = make_loader(train, run.data, seed=run.loop.seed, train=True, rows=rows)
    batch = to_global(mesh, next(loader))
    autoencoder = build_autoencoder(stage.config)

    @jax.jit
    def std(params: Any, batch: Any) -> Any:
        posterior = encoded_batch(autoencoder, params, batch)
        noise = posterior_noise(run.loop.seed, batch["index"], posterior.mode.shape[1:])
        return jnp.std(posterior.sample(noise))

    return 1 / float(std(stage.params, batch))
