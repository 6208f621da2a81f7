"""The parameters of a trained first stage, for a run that begins with them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ldm_jax import config as cfg
from ldm_jax import tree
from ldm_jax.convert import bundle
from ldm_jax.convert.load import load
from ldm_jax.training.checkpoint import read_config


def first_stage_params(path: str | Path, config: cfg.Autoencoder) -> dict[str, Any]:
    """The parameters (numpy, float32) of the autoencoder in `path`, which `config` must describe.

    Of a work directory's they are the average, or the parameters themselves where none is kept.
    How a codebook was trained may differ: that is no part of what is loaded.

    Args:
        path: a work directory, or whatever else `load` reads.
        config: the autoencoder that they are for.

    Raises:
        ConfigError, ValueError, OSError: no autoencoder in `path`, or another one; names the
            settings or parameters that differ.
    """
    imported = load(path, **_weights(Path(path)))
    found = imported.autoencoder
    same = {"latent_scale": config.latent_scale, "bottleneck": config.bottleneck}
    kinds = [type(autoencoder.bottleneck).__name__ for autoencoder in (found, config)]
    if kinds[0] != kinds[1] or replace(found, **same) != config:
        raise cfg.ConfigError(
            f"--init={path} holds another autoencoder than this config's: {found}; set "
            "config.autoencoder to it"
        )
    params = jax.tree.map(lambda leaf: np.array(leaf, np.float32), imported.frozen["autoencoder"])
    try:
        return tree.merge(bundle.autoencoder_shapes(config), params)
    except tree.TreeError as error:
        raise cfg.ConfigError(f"--init={path} does not fit this config: {error}") from error


def _weights(path: Path) -> dict[str, Any]:
    """The choice of weights for a run that keeps no average."""
    try:
        run = read_config(path)
    except (FileNotFoundError, NotADirectoryError, cfg.ConfigError):
        return {}
    return {"weights": "raw"} if getattr(run, "optim", None) and not run.optim.ema_decay else {}
