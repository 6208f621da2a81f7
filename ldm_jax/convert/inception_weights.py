"""The weights of the Inception network of image scores: read from the files in which pytorch-fid
and torch-fidelity keep them, which are the same, or from TensorFlow's graph, where they came from.
"""

from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ldm_jax.convert.feature_weights import FeatureWeights, named_file, read_weights
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.inception_graph import read_graph
from ldm_jax.core import tree
from ldm_jax.core.reading import open_file
from ldm_jax.formats.model_files import read_tensors
from ldm_jax.formats.tensorflow_graph import looks_like_graph
from ldm_jax.models.inception import SIDE, Inception

VARIABLE = "LDM_JAX_INCEPTION"
KNOWN = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""The SHA-256 of the file that scores are compared with."""
HOW_TO_GET = (
    "scores need the weights of their Inception network: pt_inception-2015-12-05-6726825d.pth of "
    "pytorch-fid's releases, or weights-inception-2015-12-05-6726825d.pth of torch-fidelity's, "
    "which is the same file"
)
_START = 9
"""Bytes by which a file is told."""
_IGNORED = ((r".*\.bn\.num_batches_tracked", "a counter of training"),)


def read_inception(path: str | Path | None = None) -> FeatureWeights:
    """The parameters of `models.inception.Inception`, in float32 and in memory.

    Args:
        path: the file of weights, or the frozen graph classify_image_graph_def.pb; None for the
            one that the environment variable `LDM_JAX_INCEPTION` names.

    Raises:
        ConvertError: no file is named; or names what is missing, unexpected, misshapen, not finite
            or no variance.
        FileFormatError: the file is missing, damaged or of another format.
    """
    path = named_file(path, "--inception", VARIABLE, HOW_TO_GET)
    with open_file(path) as file:
        read = read_graph if looks_like_graph(file.read(_START)) else read_tensors
    found = read_weights(path, _shapes(), _IGNORED, KNOWN, read)
    for name, value in tree.flatten(found.params).items():
        if name.endswith("running_var") and (value < 0).any():
            raise ConvertError(f"{path}: {name} has negative variances")
    return found


@cache
def _shapes() -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(Inception().init, jax.random.key(0), images)["params"]
