"""The weights of a network whose features images are compared by, and which file they came from."""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.convert import state_dicts
from ldm_jax.convert.imported_model import ConvertError, materialize
from ldm_jax.core import tree
from ldm_jax.core.reading import open_file
from ldm_jax.core.stores import as_path
from ldm_jax.formats.model_files import read_tensors


@dataclass(frozen=True)
class FeatureWeights:
    """Parameters in float32 and in memory."""

    params: dict[str, Any]
    sha256: str
    """Of the file."""
    known: bool
    """Whether the file is the one that others measure with. With other weights the same scores
    have other values."""


def named_file(path: str | Path | None, option: str, variable: str, how_to_get: str) -> Path:
    """`path`, which the option names, or what the environment variable names; raises ConvertError
    where neither is."""
    path = path or os.environ.get(variable)
    if not path:
        raise ConvertError(
            f"{how_to_get}; name it with {option}=FILE, or set the environment variable {variable}"
        )
    return as_path(path)


def read_weights(
    path: Path,
    shapes: dict[str, Any],
    ignore: state_dicts.Rules,
    known: str,
    read: Callable[[Path], dict[str, np.ndarray]] = read_tensors,
) -> FeatureWeights:
    """The parameters that `shapes` describes, from a file under torch's names.

    Args:
        path: a file of tensors.
        shapes: as `jax.eval_shape` of the module's init gives them.
        ignore: what else the file may have, and why that is not used.
        known: the beginning of the SHA-256 of the file that others measure with.
        read: what reads the file.

    Raises:
        ConvertError: names what is missing, unexpected, misshapen or not finite.
        FileFormatError: the file is missing, damaged or of another format.
    """
    params, _ = state_dicts.from_torch(read(path), shapes, str(path), ignore)
    for name, value in tree.flatten(params).items():
        if not np.isfinite(value).all():
            raise ConvertError(f"{path}: {name} has values that are not finite")
    digest = sha256_of_file(path)
    return FeatureWeights(materialize(params), digest, digest.startswith(known))


def sha256_of_file(path: Path) -> str:
    """Of its bytes, in hexadecimal. Raises FileFormatError where it cannot be read."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
