"""What keeps a model from being written in the form of another program, and its refusal."""

from collections.abc import Iterable
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.imported_model import ConvertError

Fields = Iterable[tuple[str, Any, Any]]
"""Name, value, and the only value that the other form has."""


def refuse(obstacles: list[str]) -> None:
    """Raises ConvertError, which names all of them, where there are any."""
    if obstacles:
        raise ConvertError(f"{'; '.join(obstacles)}; write the native form")


def differing(others: str, fields: Fields) -> list[str]:
    """Those of `fields` that are not as `others` have them."""
    return [
        f"{name} is {value}, where {others} have {wanted}"
        for name, value, wanted in fields
        if value != wanted
    ]


def of_first_stage(config: cfg.FirstStage, others: str) -> list[str]:
    """What `others` do not have of a first stage: KL, or VQ without cosine and code_dim, of whole
    pixels. KL alone can take in how each channel is normalised; see `normalization.py`."""
    match config:
        case cfg.Autoencoder(bottleneck=cfg.KL()):
            normalized = False
        case cfg.Autoencoder(bottleneck=cfg.VQ(cosine=False, code_dim=None)):
            normalized = bool(config.latent_mean)
        case _:
            bottleneck = getattr(config, "bottleneck", config)
            return [f"autoencoder is {bottleneck}, where {others} have KL, or VQ without cosine "
                    "and code_dim", *_patched(config, others)]  # fmt: skip
    without = [
        f"autoencoder.latent_mean and latent_std normalise each channel, where {others} have one "
        "scale, and a codebook cannot take them in as KL can"
    ]
    return [*(without if normalized else []), *_patched(config, others)]


def _patched(config: cfg.FirstStage, others: str) -> list[str]:
    patch_size = getattr(config, "patch_size", 1)
    return differing(others, [("autoencoder.patch_size", patch_size, 1)])


def of_unscaled(config: cfg.Model) -> list[str]:
    """What keeps the first stage from taking in how each channel is normalised."""
    edit = cfg.find(config.conditioners, cfg.EditConditioner)
    if edit is None or not getattr(config.autoencoder, "latent_mean", ()):
        return []
    return [
        "autoencoder.latent_mean and latent_std normalise each channel, which the autoencoder "
        f"cannot take in beside {named((edit,))}, whose latents are not normalised"
    ]


def named(conditioners: tuple[cfg.Conditioner, ...]) -> str:
    """The conditioners as they are called in a sentence."""
    return ", ".join(f"{part.name} ({type(part).__name__})" for part in conditioners) or "none"
