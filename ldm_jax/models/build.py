"""From configs to modules."""

from jax.typing import DTypeLike

from ldm_jax import config as cfg
from ldm_jax.models.autoencoder import Autoencoder
from ldm_jax.models.bert import BERTTextModel
from ldm_jax.models.classifier import Classifier
from ldm_jax.models.code_transformer import CodeTransformer
from ldm_jax.models.conditioners import (
    CaptionMap,
    ClassEmbedding,
    ClassToken,
    Conditioner,
    Label,
    TextEncoder,
)
from ldm_jax.models.control_net import ControlNet
from ldm_jax.models.picture_conditioners import (
    ClassMap,
    Depth,
    Edit,
    Inpainting,
    Layout,
    LowRes,
    Size,
    SpatialRescaler,
)
from ldm_jax.models.pixels import Pixels
from ldm_jax.models.process import build_process
from ldm_jax.models.sentence_bert import SentenceBERTModel
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


def build_control(
    config: cfg.ControlBranch, dtype: DTypeLike = "float32", remat: bool = False
) -> ControlNet:
    """The ControlNet; computes in `dtype`, with float32 parameters."""
    return ControlNet(config.unet, dtype, remat, config)


def build_classifier(
    config: cfg.Classifier, dtype: DTypeLike = "float32", remat: bool = False
) -> Classifier:
    """The classifier of noisy latents; computes in `dtype`, with float32 parameters and outputs."""
    return Classifier(config, dtype, remat)


def build_code_transformer(
    config: cfg.CodeTransformer, dtype: DTypeLike = "float32", remat: bool = False
) -> CodeTransformer:
    """The transformer over codes; computes in `dtype`, with float32 parameters and logits."""
    return CodeTransformer(config, dtype, remat)


def build_conditioner(
    config: cfg.Conditioner, dtype: DTypeLike = "float32", factor: int = 1
) -> Conditioner:
    """The conditioner that `config` describes; its networks compute in `dtype`. `factor` is that
    of the first stage."""
    match config:
        case cfg.ClassConditioner(context_dim=None):
            return Label(config.name)
        case cfg.ClassConditioner(num_classes=count, context_dim=width):
            return ClassToken(config.name, ClassEmbedding(count + 1, width, dtype))
        case cfg.CaptionMapConditioner():
            return CaptionMap(config.name, CaptionMapModel(config, dtype))
        case cfg.InpaintingConditioner(form=form):
            return Inpainting(config.name, form)
        case cfg.LowResConditioner(noise=noise):
            return LowRes(config.name, None if noise is None else build_process(noise.process))
        case cfg.ClassMapConditioner(maps=maps, channels=channels):
            module = SpatialRescaler(maps.num_classes, channels, factor, dtype)
            return ClassMap(config.name, module)
        case cfg.LayoutConditioner(tokens=tokens, box_map_channels=channels):
            mapper = channels and SpatialRescaler(tokens.num_classes, channels, factor, dtype)
            return Layout(config.name, BERTTextModel(config.encoder, dtype), mapper)
        case cfg.EditConditioner():
            return Edit(config.name)
        case cfg.DepthConditioner():
            return Depth(config.name)
        case cfg.SizeConditioner(width=width):
            return Size(config.name, width)
        case cfg.TextConditioner(encoder=cfg.CLIPText() as encoder):
            return TextEncoder(config.name, CLIPTextModel(encoder, dtype))
        case cfg.TextConditioner(encoder=cfg.BERTText() as encoder):
            return TextEncoder(config.name, BERTTextModel(encoder, dtype))
        case cfg.TextConditioner(encoder=cfg.SentenceBERT() as encoder):
            return TextEncoder(config.name, SentenceBERTModel(encoder, dtype))
        case cfg.TextConditioner(encoder=encoder):
            return TextEncoder(config.name, TextTransformerModel(encoder, dtype))
