"""What a run of stage two trains, and how the rest is put beside it."""

from collections.abc import Mapping
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core import tree

TRAINED = {
    "all": ((r".*", True),),
    "unet": ((r"unet/.*", True), (r"conditioners/.*", False)),
    "attention": ((r"unet/.*/attn2/.*", True), (r".*", False)),
}
"""(pattern of the whole path, whether it is trained) for each choice of `DiffusionRun.train`."""


def split(params: Any, train: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """`{"unet", "conditioners"}` as what is trained and what is left as it is.

    Raises:
        cfg.ConfigError: the model has nothing of what is to be trained.
    """
    trained, untrained = tree.split(params, TRAINED[train])
    if not trained:
        raise cfg.ConfigError(f"train is {train!r}, but the model has none; choose another")
    return trained, untrained


def bind(trained: Any, frozen: Mapping[str, Any]) -> Any:
    """All parameters of the networks: those in training with those that `frozen` leaves alone."""
    # Conditioners may all be without parameters.
    return {"conditioners": {}} | tree.join(trained, frozen.get("untrained", {}))
