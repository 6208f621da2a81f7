"""What decides a measured number besides its settings, and how two reports differ."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from ldm_jax.generation.pipeline import Pipeline, versions


def surroundings() -> dict[str, Any]:
    """Versions and devices: what may change from one part of a measurement to the next."""
    return versions() | {
        "platform": jax.default_backend(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def identity(pipeline: Pipeline) -> dict[str, Any]:
    """A model's number type and the SHA-256 of all its parameters."""
    return {
        "dtype": pipeline.dtype,
        "parameters_sha256": sha256_of(*jax.tree.leaves((pipeline.params, pipeline.frozen))),
    }


def sha256_of(*arrays: Any) -> str:
    """Of shapes, number types and values."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.name}{array.shape}".encode())
        digest.update(array.view(np.uint8) if array.ndim else array.tobytes())
    return digest.hexdigest()


def differences(was: Any, now: Any, where: str = "") -> Iterator[str]:
    """What differs between two JSON values, a line for each place: `samples.steps: 50, now 20`."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in [*was, *(name for name in now if name not in was)]:
            below = f"{where}.{name}" if where else str(name)
            yield from differences(was.get(name), now.get(name), below)
    elif was != now:
        yield f"{where}: {was!r}, now {now!r}"
