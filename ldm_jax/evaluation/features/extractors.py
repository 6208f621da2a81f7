"""The networks in whose features images are compared, each with the preprocessing that the scores
of a program are defined with.

A further network is a `Network`; a further way to use one is a `Mode` in `MODES`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Float32, UInt8

from ldm_jax import config as cfg
from ldm_jax.convert.feature_weights import FeatureWeights
from ldm_jax.convert.inception_weights import read_inception
from ldm_jax.convert.lpips_weights import read_installed_vgg16
from ldm_jax.convert.vgg_weights import read_vgg16
from ldm_jax.core.sharding import batch_sharding, make_mesh, replicated
from ldm_jax.evaluation.features.preprocessing import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Preprocessing,
)
from ldm_jax.models import backbones, inception


@dataclass(frozen=True)
class Network:
    """A network of features and where its weights come from."""

    name: str
    module: nn.Module
    """Of pixels, to features by name."""
    taps: dict[str, int]
    """The names of its features, and how many numbers each has."""
    read: Callable[[Path | None], FeatureWeights]


@dataclass(frozen=True)
class Mode:
    """How a program computes the features that its scores are of."""

    network: Network
    preprocessing: Preprocessing
    taps: tuple[str, ...]
    """Those that its scores use."""


INCEPTION = Network("Inception 2015-12-05", inception.Inception(), inception.TAPS, read_inception)
VGG16_CONVOLUTIONS = Network(
    "VGG16's convolutions", backbones.VGG16Convolutions(), {backbones.RELU5_3: 512},
    lambda _: read_installed_vgg16(),
)  # fmt: skip
VGG16 = Network("VGG16", backbones.VGG16(), backbones.VGG16_TAPS, read_vgg16)

_to_299 = partial(Preprocessing, side=inception.SIDE)
_GREY = {"mean": (128.0,) * 3, "deviation": (128.0,) * 3}
_HALF = {"mean": (127.5,) * 3, "deviation": (127.5,) * 3}

MODES = {
    "adm": Mode(
        INCEPTION, _to_299("tensorflow_bilinear", **_GREY), ("2048", "spatial", "logits_unbiased")
    ),
    "torch-fidelity": Mode(
        INCEPTION, _to_299("tensorflow_bilinear", **_GREY), ("2048", "logits_unbiased")
    ),
    "torch-fidelity-vgg16": Mode(
        VGG16,
        Preprocessing(
            "tensorflow_bilinear", backbones.VGG16_SIDE, IMAGENET_MEAN, IMAGENET_DEVIATION
        ),
        ("fc2_relu",),
    ),
    "pytorch-fid": Mode(INCEPTION, _to_299("torch_bilinear", **_HALF), ("2048",)),
    "ldm-jax": Mode(
        VGG16_CONVOLUTIONS,
        Preprocessing("pillow_bicubic", 128, IMAGENET_MEAN, IMAGENET_DEVIATION),
        (backbones.RELU5_3,),
    ),
    "clean-fid": Mode(INCEPTION, _to_299("pillow_bicubic", **_GREY), ("2048",)),
}
"""By the name of the program."""


@dataclass(frozen=True)
class Extractor:
    """A mode with its weights; called, the features of images. Made by `read_extractor`."""

    name: str
    mode: Mode
    weights: FeatureWeights
    taps: tuple[str, ...]
    batch_size: int

    @property
    def weights_sha256(self) -> str:
        """Of the file of weights."""
        return self.weights.sha256

    def describe(self) -> dict[str, Any]:
        """All that features depend on but the images, as JSON has it."""
        return {
            "extractor": self.name, "network": self.mode.network.name, "features": list(self.taps),
            "weights_sha256": self.weights.sha256, "weights_known": self.weights.known,
            **self.mode.preprocessing.describe(),
        }  # fmt: skip

    def features(
        self, images: UInt8[np.ndarray, "n h w 3"]
    ) -> dict[str, Float32[np.ndarray, "n _"]]:
        """The features of any number of images of one size, by the names of `taps`.

        They are computed in batches of `batch_size`, rounded up to the devices of this process;
        other processes take no part. The network is compiled once, the preprocessing once for
        each size of images.
        """
        parts = [
            self._of_batch(images[start : start + self._rows])
            for start in range(0, len(images), self._rows)
        ]
        if not parts:
            sizes = self.mode.network.taps
            return {name: np.zeros((0, sizes[name]), np.float32) for name in self.taps}
        return {name: np.concatenate([part[name] for part in parts]) for name in self.taps}

    def _of_batch(self, images: UInt8[np.ndarray, "n h w 3"]) -> dict[str, np.ndarray]:
        count = len(images)
        full = images[np.minimum(np.arange(self._rows), count - 1)]
        pixels = self._prepare(jax.device_put(full, batch_sharding(self._mesh)))
        found = self._apply(self._params, pixels)
        return {name: np.asarray(values)[:count] for name, values in found.items()}

    @cached_property
    def _mesh(self) -> jax.sharding.Mesh:
        return make_mesh(cfg.Mesh(), jax.local_devices())

    @cached_property
    def _rows(self) -> int:
        return -(-self.batch_size // self._mesh.size) * self._mesh.size

    @cached_property
    def _params(self) -> Any:
        return jax.device_put(self.weights.params, replicated(self._mesh))

    @cached_property
    def _prepare(self) -> Callable[[Any], Any]:
        return jax.jit(self.mode.preprocessing)

    @cached_property
    def _apply(self) -> Callable[[Any, Any], dict[str, Any]]:
        def apply(params: Any, pixels: Float[Array, "b h w 3"]) -> dict[str, Float32[Array, "b _"]]:
            # GPUs and TPUs would otherwise round what they multiply, and scores would tell devices
            # apart.
            with jax.default_matmul_precision("highest"):
                found = self.mode.network.module.apply({"params": params}, pixels)
            return {name: found[name] for name in self.taps}

        return jax.jit(apply)


def read_extractor(
    mode: str,
    weights: Path | None = None,
    *,
    taps: tuple[str, ...] | None = None,
    batch_size: int = 32,
) -> Extractor:
    """The extractor of a mode of `MODES`.

    Args:
        mode: the name of the program whose features are computed.
        weights: the file of the network's weights; None for the one that the network's
            environment variable names.
        taps: which features; None for those that the program's scores use.
        batch_size: images at once, over all devices.

    Raises:
        ValueError: there is no such mode, or its network has no such features.
        ConvertError, FileFormatError: as the reader of the network's weights.
    """
    if mode not in MODES:
        raise ValueError(f"there are no features {mode!r}; choose one of {', '.join(MODES)}")
    found = MODES[mode]
    taps = found.taps if taps is None else taps
    if unknown := [name for name in taps if name not in found.network.taps]:
        raise ValueError(
            f"{found.network.name} has no features {unknown[0]!r}; it has "
            f"{', '.join(found.network.taps)}"
        )
    return Extractor(mode, found, found.network.read(weights), taps, batch_size)
