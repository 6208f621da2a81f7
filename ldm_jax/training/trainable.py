"""What a run trains, and how the rest is put beside it."""

from collections.abc import Mapping
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core import tree

TRAINED = {
    "all": ((r".*", True),),
    "decoder": ((r"(decoder|post_quant_conv)/.*", True), (r".*", False)),
    "unet": ((r"unet/.*", True), (r"conditioners/.*", False)),
    "attention": ((r"unet/.*/attn2/.*", True), (r".*", False)),
}
"""(pattern of the whole path, whether it is trained) for each choice of a run's `train`: of an
autoencoder's parameters in stage one, of `{"unet", "conditioners"}` in stage two."""


def split(params: Any, train: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """All parameters as what is trained and what is left as it is.

    Raises:
        cfg.ConfigError: the model has nothing of what is to be trained.
    """
    trained, untrained = tree.split(params, TRAINED[train])
    if not trained:
        raise cfg.ConfigError(
            f"train is {train!r}, but the model has no such parameters; choose another value"
        )
    return trained, untrained


def bind(trained: Any, frozen: Mapping[str, Any]) -> Any:
    """All parameters of the networks: those in training with those that `frozen` leaves alone."""
    return tree.join(trained, frozen.get("untrained", {}))
