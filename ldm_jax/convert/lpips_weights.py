"""The weights of LPIPS: read from torchvision's VGG16 and the heads of the `lpips` package, or from
one file with both, which is written here."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.convert import state_dicts
from ldm_jax.convert.imported_model import ConvertError, materialize
from ldm_jax.core import tree
from ldm_jax.formats.model_files import read_tensors
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.models.lpips import LPIPS

HOW_TO_GET = (
    "LPIPS needs two files: torchvision's vgg16-397923af.pth (the weights of its vgg16 for "
    "ImageNet) and weights/v0.1/vgg.pth of the Python package lpips"
)
_IGNORED = (
    (r"classifier\..*", "VGG16's classifier, of which LPIPS sees nothing"),
    (r"lins\.\d\.model\.1\.weight", "the heads again, under the name of their list"),
    (r"scaling_layer\.(shift|scale)", "constants"),
)
_NOT_HEADS = re.compile(r"(features|net|classifier|scaling_layer)\..*")


def read_lpips(vgg: str | Path, heads: str | Path | None = None) -> dict[str, Any]:
    """The parameters of `models.lpips.LPIPS`, in float32 and in memory.

    Args:
        vgg: VGG16 as torchvision saves it; or a file with the heads too, such as `write_lpips`
            writes or the state dict of an `lpips.LPIPS(net="vgg")`.
        heads: the heads of the `lpips` package (`lin0.model.1.weight`, …), or of VQGAN's
            `vgg_lpips`, which are the same; nothing if `vgg` has them.

    Raises:
        FileFormatError: a file is missing, damaged or of another format; which.
        ConvertError: names what is missing or unexpected, or the heads of another network.
    """
    where = str(vgg) if heads is None else f"{vgg} with {heads}"
    tensors = read_tensors(Path(vgg))
    if heads is not None:
        tensors = _without_heads(tensors, vgg) | _heads(read_tensors(Path(heads)), heads)
    elif not any(name.startswith("lin") for name in tensors):
        raise ConvertError(f"{vgg} has no heads (lin0, …); name the file of them too. {HOW_TO_GET}")
    if not any(name.startswith(("features.", "net.")) for name in tensors):
        raise ConvertError(f"{where} has no VGG16 (features.0.weight, …). {HOW_TO_GET}")
    params, _ = state_dicts.from_torch(tensors, _shapes(), where, _IGNORED, _spelled)
    for path, value in tree.flatten(params).items():
        if not np.isfinite(value).all():
            raise ConvertError(f"{where}: {path} has values that are not finite")
        if path.startswith("lin") and (value < 0).any():
            raise ConvertError(f"{where}: {path} has negative weights, as no distance has")
    return materialize(params)


def write_lpips(params: Mapping[str, Any], path: str | Path) -> None:
    """One safetensors file that `read_lpips` reads by itself. Raises OSError."""
    write_safetensors(Path(path), state_dicts.to_torch(params), {"format": "pt"})


def _heads(tensors: dict[str, np.ndarray], path: str | Path) -> dict[str, np.ndarray]:
    found = {n: t for n, t in tensors.items() if not _NOT_HEADS.fullmatch(n)}
    if not found:
        raise ConvertError(f"{path} has no heads (lin0.model.1.weight, …). {HOW_TO_GET}")
    return found


def _without_heads(tensors: dict[str, np.ndarray], path: str | Path) -> dict[str, np.ndarray]:
    if any(name.startswith("lin") for name in tensors):
        raise ConvertError(f"{path} has heads itself (lin0, …); name it alone")
    return tensors


def _spelled(name: str) -> str:
    """torchvision's names, and the heads' without the dropout before them."""
    name = re.sub(r"^net\.slice\d\.", "features.", name)
    return re.sub(r"^(lin\d)\.model\.1\.", r"\1.", name)


@cache
def _shapes() -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    return jax.eval_shape(LPIPS().init, jax.random.key(0), images, images)["params"]
