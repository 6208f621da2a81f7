"""All that a run needs, as frozen dataclasses that check themselves when they are made.

`configs/*.py` build them, `train.py` overrides single fields from the command line, and every
checkpoint carries them as JSON. Importing this package imports neither JAX nor Flax, so that
`--help` answers at once.
"""

from ldm_jax.config.checks import ConfigError
from ldm_jax.config.conditions import (
    BERTText,
    ClassCondition,
    CLIPText,
    Condition,
    TextCondition,
    TextTransformer,
    Unconditional,
)
from ldm_jax.config.data import Data, DigitScenes, ImageFolder
from ldm_jax.config.files import from_json, load, to_json
from ldm_jax.config.model import Diffusion, Model
from ldm_jax.config.models import Autoencoder, UNet
from ldm_jax.config.processes import EDM, VE, VP, Discrete, Process, RectifiedFlow, SubVP
from ldm_jax.config.runs import AutoencoderRun, DiffusionRun, Run
from ldm_jax.config.sampling import Sampling
from ldm_jax.config.training import AutoencoderLoss, Loop, Mesh, Optim

__all__ = [
    "Autoencoder", "AutoencoderLoss", "AutoencoderRun", "BERTText", "CLIPText", "ClassCondition",
    "Condition", "ConfigError", "Data", "Diffusion", "DiffusionRun", "DigitScenes", "Discrete",
    "EDM", "ImageFolder", "Loop", "Mesh", "Model", "Optim", "Process", "RectifiedFlow", "Run",
    "Sampling", "SubVP", "TextCondition", "TextTransformer", "UNet", "Unconditional", "VE", "VP",
    "from_json", "load", "to_json",
]  # fmt: skip
