"""From configs to modules."""

from jax.typing import DTypeLike

from ldm_jax import config as cfg
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.bert import BERTTextModel
from ldm_jax.models.classifier import Classifier
from ldm_jax.models.conditioners import (
    CaptionMap,
    ClassEmbedding,
    ClassToken,
    Conditioner,
    Inpainting,
    Label,
    TextEncoder,
)
from ldm_jax.models.pixels import Pixels
from ldm_jax.models.text import CaptionMapModel, CLIPTextModel, TextTransformerModel
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


def build_conditioner(config: cfg.Conditioner, dtype: DTypeLike = "float32") -> Conditioner:
    """The conditioner that `config` describes; its networks compute in `dtype`."""
    match config:
        case cfg.ClassConditioner(context_dim=None):
            return Label(config.name)
        case cfg.ClassConditioner(num_classes=count, context_dim=width):
            return ClassToken(config.name, ClassEmbedding(count + 1, width, dtype))
        case cfg.CaptionMapConditioner():
            return CaptionMap(config.name, CaptionMapModel(config, dtype))
        case cfg.InpaintingConditioner():
            return Inpainting(config.name)
        case cfg.TextConditioner(encoder=cfg.CLIPText() as encoder):
            return TextEncoder(config.name, CLIPTextModel(encoder, dtype))
        case cfg.TextConditioner(encoder=cfg.BERTText() as encoder):
            return TextEncoder(config.name, BERTTextModel(encoder, dtype))
        case cfg.TextConditioner(encoder=encoder):
            return TextEncoder(config.name, TextTransformerModel(encoder, dtype))
