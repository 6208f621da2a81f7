"""Frozen parts of a work directory: safetensors files that are written once."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from ldm_jax import config as cfg
from ldm_jax.core import tree
from ldm_jax.core.files import remove_folder, write_atomically
from ldm_jax.core.stores import local_copy
from ldm_jax.workdir.layout import (
    CONDITION_STAGE,
    FIRST_STAGE,
    UNTRAINED,
    WEIGHTS,
    keeps_condition_stage,
    keeps_untrained,
)
from ldm_jax.workdir.record import CheckpointError
from ldm_jax.workdir.run_config import read_config, write_config


def save_frozen(folder: Path, name: str, frozen: Any) -> None:
    """Writes FOLDER/NAME.safetensors, keys joined by `/`, atomically and once.

    Writing the same again does nothing, so that an interrupted start can be repeated.

    Raises:
        FileExistsError: it exists with other contents; frozen parts of a model never change.
    """
    path = folder / f"{name}.safetensors"
    flat = {key: np.asarray(leaf, order="C") for key, leaf in tree.flatten(frozen).items()}
    content = safetensors.numpy.save(flat)
    if path.exists():
        if path.read_bytes() != content:
            raise FileExistsError(f"{path} exists with other content; use another --workdir")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def load_frozen(folder: Path, name: str) -> dict[str, Any]:
    """The nested dicts of numpy arrays in FOLDER/NAME.safetensors.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: the file is damaged.
    """
    path = folder / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        return tree.unflatten(safetensors.numpy.load_file(local_copy(path)))
    except (safetensors.SafetensorError, tree.TreeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error


def save_first_stage(
    workdir: Path, config: cfg.Autoencoder, params: dict[str, Any], normalization: dict[str, Any]
) -> None:
    """Writes the autoencoder that the run in `workdir` builds on, and how its latents are
    normalised: `latent_scale`, and `latent_mean` and `latent_std` where each channel is."""
    _save_autoencoder(workdir / FIRST_STAGE, config, {"autoencoder": params} | normalization)


def save_condition_stage(workdir: Path, config: cfg.Autoencoder, params: dict[str, Any]) -> None:
    """Writes the autoencoder that encodes what the run in `workdir` is conditioned on."""
    _save_autoencoder(workdir / CONDITION_STAGE, config, {"condition_stage": params})


def _save_autoencoder(folder: Path, config: cfg.Autoencoder, frozen: dict[str, Any]) -> None:
    remove_folder(folder)  # an earlier attempt's
    save_frozen(folder, WEIGHTS, frozen)
    write_config(folder, config)


def load_first_stage(
    run: cfg.DiffusionRun | cfg.ClassifierRun | cfg.CodeTransformerRun, workdir: Path
) -> tuple[cfg.FirstStage, dict[str, Any]]:
    """Config and frozen tree {"autoencoder", "latent_scale"} of the run in `workdir`, with
    "latent_mean" and "latent_std" where each channel is normalised; of a run on codes
    {"autoencoder"} alone.

    Raises:
        FileNotFoundError, CheckpointError: as `load_frozen`, or it has something else.
    """
    if isinstance(run, cfg.DiffusionRun) and run.space == "pixels":
        pixels = cfg.Pixels()
        return pixels, {"autoencoder": {}, "latent_scale": np.float32(pixels.latent_scale)}
    folder = workdir / FIRST_STAGE
    config, frozen = read_config(folder), load_frozen(folder, WEIGHTS)
    if not isinstance(run, cfg.CodeTransformerRun):
        _check_normalization(folder / f"{WEIGHTS}.safetensors", config, frozen)
    return config, frozen


def load_condition_stage(
    run: cfg.CodeTransformerRun, workdir: Path
) -> tuple[cfg.Autoencoder | None, dict[str, Any]]:
    """Config and frozen tree {"condition_stage"} of the run in `workdir`; None and {} where its
    condition has no first stage.

    Raises:
        FileNotFoundError, CheckpointError: as `load_frozen`.
    """
    if not keeps_condition_stage(run):
        return None, {}
    folder = workdir / CONDITION_STAGE
    return read_config(folder), load_frozen(folder, WEIGHTS)


def _check_normalization(path: Path, config: cfg.Autoencoder, frozen: dict[str, Any]) -> None:
    """Raises CheckpointError unless `frozen` says how latents are normalised, and nothing else."""
    shapes = {name: np.shape(leaf) for name, leaf in frozen.items() if name != "autoencoder"}
    channels = (config.latent_channels,)
    one = {"latent_scale": ()}
    if shapes not in (one, one | {"latent_mean": channels, "latent_std": channels}):
        raise CheckpointError(
            f"{path} is damaged: beside the autoencoder it has {shapes}, where it must have a "
            f"latent_scale, alone or with latent_mean and latent_std of {channels[0]} channels"
        )


def save_untrained(workdir: Path, params: dict[str, Any]) -> None:
    """Writes the parameters of the networks that the run in `workdir` leaves as they are."""
    if jax.process_index() == 0:
        remove_folder(workdir / UNTRAINED)  # an earlier attempt's
        save_frozen(workdir / UNTRAINED, WEIGHTS, params)


def load_untrained(run: cfg.Run, workdir: Path) -> dict[str, Any]:
    """The parameters of the networks that `run` leaves as it found them; {} where it trains all.

    Raises:
        FileNotFoundError, CheckpointError: as `load_frozen`.
    """
    if not keeps_untrained(run):
        return {}
    return load_frozen(workdir / UNTRAINED, WEIGHTS)
