"""The weights of a network whose features images are compared by, and which file they came from."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_jax.core.reading import open_file


@dataclass(frozen=True)
class FeatureWeights:
    """Parameters in float32 and in memory."""

    params: dict[str, Any]
    sha256: str
    """Of the file."""
    known: bool
    """Whether the file is the one that others measure with. With other weights the same scores
    have other values."""


def digest_of(path: str | Path) -> str:
    """The SHA-256 of a regular file. Raises FileFormatError where it cannot be opened."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
