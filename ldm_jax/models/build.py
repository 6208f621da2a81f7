"""From configs to modules."""

from flax import linen as nn
from jax.typing import DTypeLike

from ldm_jax import config as cfg
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.bert import BERTTextModel
from ldm_jax.models.classifier import Classifier
from ldm_jax.models.conditioners import ClassLabel, ClassToken, NoCondition
from ldm_jax.models.pixels import Pixels
from ldm_jax.models.text import CLIPTextModel, TextTransformerModel
from ldm_jax.models.unet import UNet2D


def build_autoencoder(
    config: cfg.FirstStage, dtype: DTypeLike = "float32", remat: bool = False
) -> Autoencoder | Pixels:
    """The first stage; computes in `dtype`, with float32 parameters and outputs."""
    if isinstance(config, cfg.Pixels):
        return Pixels(config)
    return Autoencoder(config, dtype, remat)


def build_unet(config: cfg.UNet, dtype: DTypeLike = "float32", remat: bool = False) -> UNet2D:
    """The denoising network; computes in `dtype`, with float32 parameters and outputs."""
    return UNet2D(config, dtype, remat)


def build_classifier(
    config: cfg.Classifier, dtype: DTypeLike = "float32", remat: bool = False
) -> Classifier:
    """The classifier of noisy latents; computes in `dtype`, with float32 parameters and outputs."""
    return Classifier(config, dtype, remat)


def build_conditioner(
    config: cfg.Unconditional | cfg.ClassCondition | cfg.TextCondition,
    dtype: DTypeLike = "float32",
) -> nn.Module:
    """The module whose `__call__(inputs)` gives the U-Net's `Condition`.

    Inputs are tokens Int[b, l] for text and labels Int[b] for classes, where `num_classes` is
    the unconditional one; without a condition they are Int[b] and not looked at.
    """
    match config:
        case cfg.Unconditional():
            return NoCondition()
        case cfg.ClassCondition(context_dim=None):
            return ClassLabel()
        case cfg.ClassCondition(num_classes=count, context_dim=width):
            return ClassToken(count + 1, width, dtype)
        case cfg.TextCondition(encoder=cfg.CLIPText() as encoder):
            return CLIPTextModel(encoder, dtype)
        case cfg.TextCondition(encoder=cfg.BERTText() as encoder):
            return BERTTextModel(encoder, dtype)
        case cfg.TextCondition(encoder=encoder):
            return TextTransformerModel(encoder, dtype)
