"""Embeddings of pictures and texts by CLIP, and features of pictures by DINOv2: what CLIP scores,
CMMD and FD-DINOv2 are computed from."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Float32, UInt8

from ldm_jax import config as cfg
from ldm_jax.convert.clip.clip_folders import ImportedClip, read_clip, read_dinov2
from ldm_jax.convert.feature_weights import FeatureWeights
from ldm_jax.data.tokenizer import Tokenizer
from ldm_jax.evaluation.features.extractors import Extractor, Mode, Network
from ldm_jax.evaluation.features.preprocessing import (
    IMAGENET_DEVIATION,
    IMAGENET_MEAN,
    Channels,
    Preprocessing,
)
from ldm_jax.models.clip_model import CLIP, DEVIATION, MEAN
from ldm_jax.models.dinov2 import DINOv2

EMBEDDING, CLASS_TOKEN = "embedding", "class_token"
DINOV2_SIDE = 224
"""Pixels of the pictures whose features are compared, whatever the network was trained on last."""
AUTHORS_OFFSET = 0.1
"""How positions are interpolated by the code with which FD-DINOv2 is measured."""


class _Pictures(nn.Module):
    """CLIP's image encoder under the whole model's names."""

    config: cfg.CLIP

    def setup(self) -> None:
        self.whole = CLIP(self.config)
        nn.share_scope(self, self.whole)

    def __call__(self, pixels: Float[Array, "b h w 3"]) -> dict[str, Float32[Array, "b d"]]:
        return {EMBEDDING: self.whole.images(pixels)}


class _ClassToken(nn.Module):
    """DINOv2's class token after the last norm."""

    config: cfg.DINOv2
    position_offset: float

    def setup(self) -> None:
        self.whole = DINOv2(self.config, position_offset=self.position_offset)
        nn.share_scope(self, self.whole)

    def __call__(self, pixels: Float[Array, "b h w 3"]) -> dict[str, Float32[Array, "b d"]]:
        return {CLASS_TOKEN: self.whole(pixels)}


def clip_preprocessing(side: int) -> Preprocessing:
    """The published one: the shorter side becomes `side` by Pillow's bicubic of 8 bits, the middle
    is kept, and each channel is normalised."""
    mean, deviation = (_of_levels(values) for values in (MEAN, DEVIATION))
    return Preprocessing("pillow_bicubic_uint8", side, mean, deviation, crop=True)


def _of_levels(values: Channels) -> Channels:
    red, green, blue = values
    return 255 * red, 255 * green, 255 * blue


@dataclass(frozen=True)
class ClipEmbedder:
    """A CLIP that embeds pictures and texts; made by `read_clip_embedder`. Embeddings are float32
    and of length 1, so that the cosine of two is their product."""

    clip: ImportedClip
    pictures: Extractor
    """The image encoder, whose features are called EMBEDDING."""

    def images(self, images: UInt8[np.ndarray, "n h w 3"]) -> Float32[np.ndarray, "n d"]:
        """Embeddings of any number of pictures of one size, which are preprocessed here."""
        return self.pictures.features(images)[EMBEDDING]

    def texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
        """Embeddings of any number of texts; what is too long loses its end.

        Raises:
            ConvertError, TokenizerError: the model has no tokenizer, or one of another model.
        """
        rows, length = self.pictures.batch_size, self.clip.config.text.max_length
        parts = []
        for start in range(0, len(texts), rows):
            tokens = self._tokenizer.encode(texts[start : start + rows], length)
            # The last batch is filled up, so that there is one shape to compile for.
            full = tokens[np.minimum(np.arange(rows), len(tokens) - 1)]
            parts.append(np.asarray(self._embed(self._params, full))[: len(tokens)])
        return np.concatenate([np.zeros((0, self.clip.config.embedding), np.float32), *parts])

    def describe(self) -> dict[str, Any]:
        """All that embeddings depend on but pictures and texts, as JSON has it."""
        return self.pictures.describe()

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        return self.clip.open_tokenizer()

    @cached_property
    def _params(self) -> Any:
        return jax.tree.map(jax.numpy.asarray, self.clip.params)

    @cached_property
    def _embed(self) -> Any:
        module = CLIP(self.clip.config)

        def embed(params: Any, tokens: Any) -> Any:
            with jax.default_matmul_precision("highest"):  # as pictures are embedded
                return module.apply({"params": params}, tokens, method="texts")

        return jax.jit(embed)


def read_clip_embedder(path: str | Path, batch_size: int = 32) -> ClipEmbedder:
    """The embedder of a folder as transformers saves CLIP, or of the work directory of a run that
    trained one.

    Raises:
        ConvertError, FileFormatError, ValueError, OSError: as `read_clip`.
    """
    clip = read_clip(path)
    side = clip.config.vision.image_size
    network = Network(
        f"CLIP {clip.name}", _Pictures(clip.config), {EMBEDDING: clip.config.embedding},
        lambda _: FeatureWeights(clip.params, clip.weights_sha256, known=False),
    )  # fmt: skip
    return ClipEmbedder(clip, _extractor("clip", network, clip_preprocessing(side), batch_size))


def read_dinov2_extractor(path: str | Path, batch_size: int = 32) -> Extractor:
    """The features of FD-DINOv2 (Stein 2023, arXiv:2306.04675) by the DINOv2 in a folder as
    transformers saves it: the class token, called CLASS_TOKEN, of pictures that are squeezed into
    a square of 224 pixels by Pillow's bicubic.

    Raises:
        ConvertError, FileFormatError: as `read_dinov2`.
    """
    found = read_dinov2(path)
    network = Network(
        f"DINOv2 {found.name}", _ClassToken(found.config, AUTHORS_OFFSET),
        {CLASS_TOKEN: found.config.width},
        lambda _: FeatureWeights(found.params, found.weights_sha256, known=False),
    )  # fmt: skip
    squeezed = Preprocessing("pillow_bicubic_uint8", DINOV2_SIDE, IMAGENET_MEAN, IMAGENET_DEVIATION)
    return _extractor("dinov2", network, squeezed, batch_size)


def _extractor(name: str, network: Network, pixels: Preprocessing, batch_size: int) -> Extractor:
    taps = tuple(network.taps)
    return Extractor(name, Mode(network, pixels, taps), network.read(None), taps, batch_size)
