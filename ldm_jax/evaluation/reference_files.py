"""Statistics of a reference set as an .npz file: those of ADM, pytorch-fid, clean-fid and EDM are
read, and written with what they were made of.

    mu, sigma          mean and covariance of Inception's last features
    mu_s, sigma_s      of its spatial features, for sFID (ADM)
    arr_0              images of the set, for precision and recall (ADM)
    provenance         JSON, as text: what was computed of what (ours)
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import FileFormatError, open_file, parse_json
from ldm_jax.evaluation.scores.moments import Moments

KEYS = {"2048": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
"""Layer of Inception → arrays of its mean and covariance."""
PROVENANCE = "provenance"
MAX_WIDTH = 8192
_ASYMMETRY = 1e-4
"""Of a covariance, relative to its largest value; others' are symmetric up to rounding."""


@dataclass(frozen=True)
class ReferenceFile:
    """What such a file says."""

    path: Path
    moments: Mapping[str, Moments]
    """By layer."""
    provenance: Mapping[str, Any] | None
    """None in files of others, which do not say how they were made."""


def is_reference(path: Path) -> bool:
    """Whether a file is an .npz with statistics, rather than images alone."""
    if path.suffix != ".npz" or not path.is_file():
        return False
    return "mu" in _arrays(path, ())


def read_reference(path: Path) -> ReferenceFile:
    """Reads such a file. Raises FileFormatError: names what is missing or cannot be."""
    names = _arrays(path, ())
    wanted = [key for keys in KEYS.values() for key in keys if key in names]
    if "mu" not in names or "sigma" not in names:
        raise FileFormatError(path, "has no statistics, mu and sigma; it has " + ", ".join(names))
    arrays = _arrays(path, (*wanted, *({PROVENANCE} & names.keys())))
    provenance = None
    if PROVENANCE in arrays:
        provenance = parse_json(path, PROVENANCE, str(arrays[PROVENANCE]))
    count = provenance.get("images", 0) if isinstance(provenance, dict) else 0
    moments = {
        layer: _moments(path, arrays, mean, covariance, count)
        for layer, (mean, covariance) in KEYS.items() if mean in arrays
    }  # fmt: skip
    return ReferenceFile(path, moments, provenance)


def write_reference(
    path: Path, moments: Mapping[str, Moments], provenance: Mapping[str, Any]
) -> None:
    """Writes such a file, which the evaluators that are named above read as well."""
    arrays: dict[str, Any] = {PROVENANCE: np.array(json.dumps(provenance))}
    for layer, found in moments.items():
        mean, covariance = KEYS[layer]
        arrays |= {mean: found.mean, covariance: found.covariance}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomically(path, content.getvalue())


def _arrays(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The arrays `names`; without any, the names that there are, each with None."""
    try:
        with open_file(path) as file, np.load(file, allow_pickle=False) as arrays:
            if not names:
                return dict.fromkeys(arrays.files)
            return {name: arrays[name] for name in names}
    except FileFormatError:
        raise
    except Exception as error:  # of a damaged archive nearly anything
        raise FileFormatError(path, f"is no .npz file of arrays ({error})") from error


def _moments(path: Path, arrays: Mapping[str, Any], mean: str, covariance: str, count: int) -> Any:
    mu, sigma = arrays[mean], arrays.get(covariance)
    if sigma is None or mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or len(mu) > MAX_WIDTH:
        shape = None if sigma is None else sigma.shape
        raise FileFormatError(
            path, f"has {mean} {mu.shape} and {covariance} {shape}; they must be [d] and [d, d]"
        )
    if mu.dtype.kind != "f" or sigma.dtype.kind != "f":
        raise FileFormatError(path, f"has {mean} of {mu.dtype}; it must be floating-point numbers")
    mu, sigma = mu.astype(np.float64), sigma.astype(np.float64)
    if not (np.isfinite(mu).all() and np.isfinite(sigma).all()):
        raise FileFormatError(path, f"has values in {mean} or {covariance} that are not finite")
    if np.abs(sigma - sigma.T).max() > _ASYMMETRY * np.abs(sigma).max():
        raise FileFormatError(path, f"has {covariance} that is not symmetric, as no covariance is")
    return Moments(count, mu, (sigma + sigma.T) / 2)
