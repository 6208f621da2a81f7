"""All that a run needs, as frozen dataclasses that check themselves when they are made.

`configs/*.py` build them, `train.py` overrides single fields from the command line, and every
checkpoint carries them as JSON. Importing this package imports neither JAX nor Flax, so that
`--help` answers at once.
"""

from ldm_jax.config.autoregressive import (
    START,
    ClassPrefix,
    CodeModel,
    CodeSampling,
    CodeTransformer,
)
from ldm_jax.config.bottlenecks import FSQ, KL, LFQ, VQ, Bottleneck, Gumbel
from ldm_jax.config.checks import ConfigError, Side, image_size, require_divisible
from ldm_jax.config.conditioning import (
    BERTText,
    CaptionMapConditioner,
    ClassConditioner,
    ClassMapConditioner,
    CLIPText,
    Conditioner,
    DepthConditioner,
    EditConditioner,
    InpaintingConditioner,
    LayoutConditioner,
    LowResConditioner,
    NoiseAugmentation,
    Slots,
    TextConditioner,
    TextTransformer,
    concat_slice,
    find,
    slots_of,
)
from ldm_jax.config.config_files import ConfigFile, load, open_config, shipped
from ldm_jax.config.data import Data, DigitScenes, EncodedLatents, ImageFolder
from ldm_jax.config.differences import differences
from ldm_jax.config.diffusion_objective import Objective
from ldm_jax.config.first_stage_loss import Adversarial, AutoencoderLoss, Perceptual
from ldm_jax.config.model import Diffusion, Model
from ldm_jax.config.networks import Autoencoder, Classifier, FirstStage, Pixels, UNet
from ldm_jax.config.noise_processes import EDM, VE, VP, Discrete, Process, RectifiedFlow, SubVP
from ldm_jax.config.request import ConditionFiles, ModelChoice, PictureInput, Request
from ldm_jax.config.runs import (
    TRAINED,
    AutoencoderRun,
    ClassifierRun,
    CodeTransformerRun,
    DiffusionRun,
    Run,
)
from ldm_jax.config.sampling import Sampling
from ldm_jax.config.serialization import from_json, to_json
from ldm_jax.config.tasks import (
    BSRGAN,
    FLAGS,
    Bicubic,
    Boxes,
    CaptionTags,
    ClassMaps,
    Degradation,
    LayoutTokens,
    Masks,
    Strokes,
)
from ldm_jax.config.training import Loop, Mesh, Optim

__all__ = [
    "Adversarial",
    "Autoencoder",
    "AutoencoderLoss",
    "AutoencoderRun",
    "BERTText",
    "BSRGAN",
    "Bicubic",
    "Bottleneck",
    "Boxes",
    "CLIPText",
    "CaptionTags",
    "CaptionMapConditioner",
    "ClassConditioner",
    "ClassMapConditioner",
    "ClassMaps",
    "ClassPrefix",
    "Classifier",
    "ClassifierRun",
    "CodeModel",
    "CodeSampling",
    "CodeTransformer",
    "CodeTransformerRun",
    "ConditionFiles",
    "Conditioner",
    "ConfigError",
    "ConfigFile",
    "Data",
    "Degradation",
    "DepthConditioner",
    "Diffusion",
    "DiffusionRun",
    "DigitScenes",
    "Discrete",
    "EDM",
    "EditConditioner",
    "EncodedLatents",
    "FLAGS",
    "FSQ",
    "FirstStage",
    "Gumbel",
    "ImageFolder",
    "InpaintingConditioner",
    "KL",
    "LFQ",
    "LayoutConditioner",
    "LayoutTokens",
    "Loop",
    "LowResConditioner",
    "Masks",
    "Mesh",
    "Model",
    "ModelChoice",
    "NoiseAugmentation",
    "Objective",
    "Optim",
    "Perceptual",
    "PictureInput",
    "Pixels",
    "Process",
    "RectifiedFlow",
    "Request",
    "Run",
    "START",
    "TRAINED",
    "Sampling",
    "Side",
    "Slots",
    "Strokes",
    "SubVP",
    "TextConditioner",
    "TextTransformer",
    "UNet",
    "VE",
    "VP",
    "VQ",
    "concat_slice",
    "differences",
    "find",
    "from_json",
    "image_size",
    "load",
    "open_config",
    "require_divisible",
    "shipped",
    "slots_of",
    "to_json",
]
