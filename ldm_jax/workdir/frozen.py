"""Frozen parts of a work directory: safetensors files that are written once."""

from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ldm_jax.core import tree
from ldm_jax.core.files import write_atomically
from ldm_jax.workdir.record import CheckpointError


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
            raise FileExistsError(f"{path} exists with other contents; use another work directory")
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
        return tree.unflatten(safetensors.numpy.load_file(path))
    except (safetensors.SafetensorError, tree.TreeError) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
