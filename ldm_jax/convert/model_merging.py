"""Models made of several: a weighted sum of two, or one with the difference of two others added."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.convert.imported_model import DTYPES, ConvertError, Imported, stored
from ldm_jax.convert.loading import load
from ldm_jax.convert.parts import InitialParams, OtherNetworks, initial_params
from ldm_jax.core import tree


def merged(
    first: str | Path, second: str | Path, share: float, minus: str | Path | None = None
) -> Imported:
    """The model in `first` with `share` of another's U-Net and conditioners mixed in.

    Without `minus` each parameter is (1 - share) first + share second; with it first + share
    (second - minus), which moves what `second` has learnt beyond `minus` into `first`. There the
    first may be shown more beside its latents than the others, as inpainting models are; those
    inputs stay as they are. Computed in float32 and stored as the first is; first stage and
    tokenizer are the first's.

    Raises:
        ConvertError, ConfigError, ValueError, OSError: a model that cannot be read, or whose
            networks have other shapes than the first's.
    """
    base = load(first)
    if not base.params:
        raise ConvertError(f"{first} holds a first stage alone, not a diffusion model")
    added = tree.flatten(_like(base, second, minus).params)
    taken = None if minus is None else tree.flatten(_like(base, minus, second).params)
    params = {}
    for path, leaf in tree.flatten(base.params).items():
        own = np.asarray(leaf, np.float32)
        before = own if taken is None else taken[path]
        mixed = own + np.float32(share) * (added[path] - before)
        params[path] = stored(mixed, _dtype_name(leaf))
    how = {"share": share, "second": str(second), "minus": minus and str(minus)}
    return replace(
        base, params={"conditioners": {}} | tree.unflatten(params),
        origin=base.origin | {"merged": {name: value for name, value in how.items() if value}},
    )  # fmt: skip


def _like(base: Imported, path: str | Path, other: str | Path | None) -> InitialParams:
    """The parameters in `path` with the shapes of `base`'s, in float32."""
    try:
        found = initial_params(path, base.config, option="MODEL")
    except OtherNetworks as error:
        raise ConvertError(
            f"{path} has other networks than the first model, so they cannot be merged: "
            f"{error.listed.replace(' here', ' in the first')}"
        ) from error
    if found.widening and other is None:
        raise ConvertError(
            f"{path} has fewer inputs than the first model, so half of it cannot be taken; add its "
            "difference from the model that it was trained from, with --minus=MODEL"
        )
    return found


def _dtype_name(leaf: Any) -> str:
    return next(name for name, dtype in DTYPES.items() if dtype == leaf.dtype)
