"""What a run trains, and how the rest is put beside it."""

import re
from collections.abc import Mapping
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core import tree

OF_FIRST_STAGE = {"all": r".*", "decoder": r"(decoder|post_quant_conv)/.*"}
"""As `cfg.TRAINED`, of an autoencoder's parameters."""


def split(params: Any, run: cfg.AutoencoderRun | cfg.DiffusionRun) -> tuple[Any, Any]:
    """All parameters as what `run` trains and what it leaves as it is.

    Raises:
        cfg.ConfigError: the model has nothing of what is to be trained.
    """
    if isinstance(run, cfg.AutoencoderRun):
        patterns = {run.train: OF_FIRST_STAGE[run.train]}
    else:
        patterns = {entry: cfg.TRAINED.get(entry, entry) for entry in run.train}
    paths = tree.flatten(params).keys()
    for entry, pattern in patterns.items():
        if not any(re.fullmatch(pattern, path) for path in paths):
            raise cfg.ConfigError(
                f"train is {entry!r}, but the model has no such parameters; choose another value"
            )
    return tree.split(params, [(p, True) for p in patterns.values()] + [(r".*", False)])


def bind(trained: Any, frozen: Mapping[str, Any]) -> Any:
    """All parameters of the networks: those in training with those that `frozen` leaves alone."""
    return tree.join(trained, frozen.get("untrained", {}))
