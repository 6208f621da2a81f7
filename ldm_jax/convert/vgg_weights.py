"""The weights of VGG16 with its classifier, read from torchvision's file."""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.convert.feature_weights import FeatureWeights, named_file, read_weights
from ldm_jax.models.backbones import VGG16, VGG16_SIDE

VARIABLE = "LDM_JAX_VGG16"
KNOWN = "397923af"
"""What the SHA-256 of torchvision's file begins with; it is named so."""
HOW_TO_GET = (
    "features of VGG16 need its weights: vgg16-397923af.pth, torchvision's for vgg16 on ImageNet"
)
_IGNORED = ((r"classifier\.6\.(weight|bias)", "the last layer, which comes after the features"),)


def read_vgg16(path: str | Path | None = None) -> FeatureWeights:
    """The parameters of `models.backbones.VGG16`, in float32 and in memory.

    Args:
        path: the file of weights; None for the one that the environment variable `LDM_JAX_VGG16`
            names.

    Raises:
        ConvertError: no file is named; or names what is missing, unexpected, misshapen or not
            finite.
        FileFormatError: the file is missing, damaged or of another format.
    """
    return read_weights(named_file(path, "--vgg", VARIABLE, HOW_TO_GET), _shapes(), _IGNORED, KNOWN)


@cache
def _shapes() -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, VGG16_SIDE, VGG16_SIDE, 3), jnp.float32)
    return jax.eval_shape(VGG16().init, jax.random.key(0), images)["params"]
