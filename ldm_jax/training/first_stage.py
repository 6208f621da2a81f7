"""The frozen autoencoder in the work directory of a second stage."""

import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.core.sharding import local_rows, make_mesh, to_global
from ldm_jax.data.loader import make_loader
from ldm_jax.data.sources import Source
from ldm_jax.models.build import build_autoencoder
from ldm_jax.training.autoencoder_loss import posterior_noise
from ldm_jax.training.latents import check_encoder, posterior_of
from ldm_jax.workdir.checkpoints import Checkpoints
from ldm_jax.workdir.consistency import check_parts
from ldm_jax.workdir.frozen import load_frozen, save_frozen
from ldm_jax.workdir.layout import FIRST_STAGE, WEIGHTS, keeps_first_stage
from ldm_jax.workdir.run_config import read_config, write_config


def autoencoder_run(first_stage: Path) -> cfg.AutoencoderRun:
    """The config of a trained first stage, or of that in the work directory of a second one."""
    source = read_config(first_stage)
    if keeps_first_stage(source):
        source = read_config(first_stage / FIRST_STAGE)
    if not isinstance(source, cfg.AutoencoderRun):
        raise cfg.ConfigError(f"{first_stage} holds a {type(source).__name__}, not an autoencoder")
    return source


def load_first_stage(
    run: cfg.DiffusionRun | cfg.ClassifierRun, workdir: Path
) -> tuple[cfg.FirstStage, dict[str, Any]]:
    """Config and frozen tree {"autoencoder", "latent_scale"} of the run in `workdir`."""
    if isinstance(run, cfg.DiffusionRun) and run.space == "pixels":
        pixels = cfg.Pixels()
        return pixels, {"autoencoder": {}, "latent_scale": np.float32(pixels.latent_scale)}
    folder = workdir / FIRST_STAGE
    return read_config(folder).autoencoder, load_frozen(folder, WEIGHTS)


def check_first_stage(run: cfg.DiffusionRun, fresh: Path | None, first_stage: Path | None) -> None:
    """Raises ConfigError where a first stage is missing in the `fresh` work directory, or one is
    given that does not fit, or that pixels do not need."""
    if run.space == "pixels":
        if first_stage is not None:
            raise cfg.ConfigError(
                f"--first_stage={first_stage}: this config's space is 'pixels', which needs none"
            )
    elif first_stage is not None:
        run.model(autoencoder_run(first_stage).autoencoder)
    elif fresh is not None:
        raise cfg.ConfigError(
            f"{fresh} has no first stage yet: name a trained one with --first_stage=WORKDIR"
        )


def copy_first_stage(
    run: cfg.DiffusionRun | cfg.ClassifierRun, train: Source, workdir: Path, first_stage: Path
) -> None:
    """Writes the first stage's parameters with its latent scale into `workdir`.

    A scale that is not in its config is measured. That of a second stage's work directory was.
    """
    if keeps_first_stage(read_config(first_stage)):
        check_parts(first_stage)
        check_encoder(train, load_frozen(first_stage / FIRST_STAGE, WEIGHTS)["autoencoder"])
        if jax.process_index() == 0:
            shutil.rmtree(workdir / FIRST_STAGE, ignore_errors=True)
            shutil.copytree(first_stage / FIRST_STAGE, workdir / FIRST_STAGE)
        return
    source = autoencoder_run(first_stage)
    _, params = Checkpoints.load_params(first_stage, "ema" if source.optim.ema_decay else "raw")
    check_encoder(train, params)
    scale = source.autoencoder.latent_scale or _measure_scale(
        source.autoencoder, params, run, train
    )
    frozen = {"autoencoder": params, "latent_scale": np.float32(scale)}
    if jax.process_index() == 0:
        shutil.rmtree(workdir / FIRST_STAGE, ignore_errors=True)
        save_frozen(workdir / FIRST_STAGE, WEIGHTS, frozen)
        write_config(workdir / FIRST_STAGE, source)


def _measure_scale(
    config: cfg.Autoencoder,
    params: Any,
    run: cfg.DiffusionRun | cfg.ClassifierRun,
    train: Source,
) -> float:
    """1 / std of the latents of the first global batch (Rombach 2022, appendix G).

    Each process sees its own rows; the mean over the global array makes all of them agree.
    """
    mesh = make_mesh(run.mesh)
    rows = local_rows(mesh, run.data.batch_size)
    loader = make_loader(train, run.data, seed=run.loop.seed, train=True, rows=rows)
    batch = to_global(mesh, next(loader))
    autoencoder = build_autoencoder(config)
    side = run.data.image_size // config.factor
    shape = (side, side, config.latent_channels)

    @jax.jit
    def std(params: Any, batch: Any) -> Any:
        posterior = posterior_of(autoencoder, params, batch)
        return jnp.std(posterior.sample(posterior_noise(run.loop.seed, batch["index"], shape)))

    return 1 / float(std(params, batch))
