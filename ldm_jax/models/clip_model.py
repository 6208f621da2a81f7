"""CLIP: embeddings of pictures and of texts that can be compared (Radford 2021, arXiv:2103.00020);
parameters named as those of transformers' `CLIPModel`."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ldm_jax import config as cfg
from ldm_jax.models.text import CLIPTextStack
from ldm_jax.models.vision_transformer import CLIPVisionStack

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)
"""Of red, green and blue in 0..1, by which CLIP's pixels are normalised."""
FIRST_SCALE = 1 / 0.07
"""What similarities are multiplied by at the beginning (section 2.5)."""
FIRST_SIGMOID = (10.0, -10.0)
"""The same for the sigmoid loss, and what is added to them (Zhai 2023, section 3.2)."""


class Compared(NamedTuple):
    """What a contrastive loss is a function of; embeddings have length 1."""

    images: Float[Array, "b d"]
    texts: Float[Array, "m d"]
    scale: Float[Array, ""]
    """What similarities are multiplied by."""
    bias: Float[Array, ""]
    """What is then added to them; 0 in CLIP."""


def similarities(compared: Compared) -> Float[Array, "b m"]:
    """The logits of each picture with each text."""
    cosines = compared.images @ compared.texts.T
    return cosines * compared.scale[None, None] + compared.bias[None, None]


def normalised_pixels(images: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Images of 0..255 as the image encoder takes them."""
    mean, deviation = (jnp.float32(value)[None, None, None] for value in (MEAN, DEVIATION))
    return (images.astype(jnp.float32) / 255 - mean) / deviation


class CLIP(nn.Module):
    """Both encoders; embeddings in float32 and of length 1."""

    config: cfg.CLIP
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        config, scale = self.config, FIRST_SCALE
        self.text_model = CLIPTextStack(config.text, self.dtype, self.remat)
        self.vision_model = CLIPVisionStack(config.vision, self.dtype, self.remat)
        self.text_projection = nn.Dense(config.embedding, use_bias=False, dtype=self.dtype)
        self.visual_projection = nn.Dense(config.embedding, use_bias=False, dtype=self.dtype)
        if config.logit_bias:
            scale, bias = FIRST_SIGMOID
            self.logit_bias = self.param("logit_bias", nn.initializers.constant(bias), ())
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(math.log(scale)), ())

    def images(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        """Embeddings of pixels, `normalised_pixels`."""
        return unit(self.visual_projection(self.vision_model(pixels)))

    def texts(self, tokens: Int[Array, "b l"]) -> Float[Array, "b d"]:
        """Embeddings of texts, each read at its end."""
        states = self.text_model(tokens)
        ends = end_places(tokens, self.config.end_token)
        states = jnp.take_along_axis(states, ends[:, None, None], axis=1)[:, 0]
        return unit(self.text_projection(states))

    def __call__(self, pixels: Float[Array, "b h w 3"], tokens: Int[Array, "m l"]) -> Compared:
        bias = self.logit_bias if self.config.logit_bias else jnp.float32(0)
        return Compared(self.images(pixels), self.texts(tokens), jnp.exp(self.logit_scale), bias)


def unit(x: Float[Array, "b d"]) -> Float[Array, "b d"]:
    """Vectors divided by their length, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def end_places(tokens: Int[Array, "b l"], end_token: int | None) -> Int[Array, " b"]:
    """Where each text ends, as `cfg.CLIP.end_token` says."""
    if end_token is None:
        return jnp.argmax(tokens, axis=1)
    found = tokens == end_token
    last = tokens.shape[1] - 1
    return jnp.where(found.any(axis=1), jnp.argmax(found, axis=1), last)
