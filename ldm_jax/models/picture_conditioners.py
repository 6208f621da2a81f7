"""Conditioners of pictures: what lies beside the latents, and the layout of what is to be seen."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key

from ldm_jax.core.typing import Process
from ldm_jax.models.conditioners import Condition, Encoder, Inputs
from ldm_jax.models.layers import Conv, timestep_embedding
from ldm_jax.models.pixels import to_pixels

GREY, BLACK = 0.0, -1.0
"""Pixels in [-1, 1]."""


@dataclass(frozen=True)
class Inpainting:
    """The `mask` at the latents' size, and the encoded `image` with a hole where the mask is 1.

    `mask` [#b h w 1] is 1 where is painted anew; `image` [#b h w 3] is uint8. The posterior of what
    is left of it is sampled with `masked_noise` [b zh zw z]; one image may serve for several rows
    of noise. With the form of Stable Diffusion the hole is grey and the mask, 0 and 1, comes first;
    with that of the latent diffusion paper the hole is black and the mask, -1 and 1, comes last.
    """

    name: str
    form: Literal["stable_diffusion", "latent_diffusion"]

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return {}

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        noise, mask = inputs["masked_noise"], inputs["mask"].astype(jnp.float32)
        pixels = to_pixels(inputs["image"])
        is_paper = self.form == "latent_diffusion"
        pixels = jnp.where(mask < 0.5, pixels, BLACK if is_paper else GREY)
        # What the encoder is sure of comes without a row for each noise.
        latents = jnp.broadcast_to(encoder.sampled(pixels, noise), noise.shape)
        factor = mask.shape[1] // noise.shape[1]
        # Of each factor x factor pixels the upper left one, as torch's nearest-neighbour has it.
        small = jnp.broadcast_to(mask[:, ::factor, ::factor], (*noise.shape[:3], 1))
        parts = (latents, 2 * small - 1) if is_paper else (small, latents)
        return Condition(concat=jnp.concatenate(parts, axis=-1))


@dataclass(frozen=True)
class LowRes:
    """The uint8 image `low_res` [b zh zw 3], of the latents' size, as pixels.

    With a process it gets noise, `low_res_noise` of the same shape, at its timestep `noise_level`
    [b], which is the label.
    """

    name: str
    process: Process | None

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return {}

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        pixels = to_pixels(inputs["low_res"])
        if self.process is None:
            return Condition(concat=pixels)
        level = inputs["noise_level"]
        alpha, sigma = (
            at(level)[:, None, None, None] for at in (self.process.alpha_at, self.process.sigma_at)
        )
        return Condition(concat=alpha * pixels + sigma * inputs["low_res_noise"], label=level)


@dataclass(frozen=True)
class ClassMap:
    """The `class_map` [b h w], projected; classes below 0 are none."""

    name: str
    module: nn.Module

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return self.module.init(key, inputs["class_map"])["params"]

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        return Condition(concat=self.module.apply({"params": params}, inputs["class_map"]))


@dataclass(frozen=True)
class Size:
    """The six numbers of `size` [b 6], each in a sinusoidal embedding, one after the other: height
    and width of the picture as it was, top and left of the crop, height and width that are shown.
    """

    name: str
    width: int

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return {}

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        numbers = inputs["size"]
        embedded = timestep_embedding(numbers.reshape(-1), self.width)
        return Condition(pooled=embedded.reshape(len(numbers), -1))


class SpatialRescaler(nn.Module):
    """Classes of pixels as channels of latents: the share of each class in `factor` x `factor`
    pixels, through a 1x1 convolution without bias (Rombach 2022, appendix D.1).

    It begins as an embedding does, with unit variance: one class among many is seen from the start.
    """

    class_count: int
    channels: int
    factor: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, class_map: Int[Array, "b h w"]) -> Float[Array, "b zh zw c"]:
        factor = self.factor
        # Counted pixel by pixel of a cell, so that no one-hot map of full size is made.
        cells = [class_map[:, y::factor, x::factor] for y in range(factor) for x in range(factor)]
        counts = sum(jax.nn.one_hot(cell, self.class_count) for cell in cells)
        project = Conv(
            self.channels, 1, padding=(0, 0), use_bias=False, dtype=self.dtype,
            kernel_init=nn.initializers.normal(1.0), name="channel_mapper",
        )  # fmt: skip
        return project(counts / factor**2).astype(jnp.float32)


@dataclass(frozen=True)
class Layout:
    """The tokens of `boxes` [b l], encoded, and the same boxes painted as the class map `box_map`
    [b h w], projected, where there is a module for it."""

    name: str
    encoder: nn.Module
    mapper: SpatialRescaler | None

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        params = self.encoder.init(key, inputs["boxes"])["params"]
        if self.mapper is None:
            return params
        return params | self.mapper.init(key, inputs["box_map"])["params"]

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        condition = self.encoder.apply({"params": params}, inputs["boxes"])
        if self.mapper is None:
            return condition
        painted = self.mapper.apply({"params": params}, inputs["box_map"])
        return condition._replace(concat=painted)


@dataclass(frozen=True)
class Edit:
    """The encoded `edit_image` [b h w 3], uint8: the mode of its posterior, unscaled; zero where
    `edit_given` [b] is 0."""

    name: str

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return {}

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        latents = encoder.mode(to_pixels(inputs["edit_image"]))
        given = inputs["edit_given"][:, None, None, None] != 0
        return Condition(concat=jnp.where(given, latents, 0.0))


@dataclass(frozen=True)
class Depth:
    """The `depth` [b zh zw], of the latents' size, from -1 where a picture is farthest to 1 where
    it is nearest; a picture without depth is -1 everywhere."""

    name: str

    def init(self, key: Key[Array, ""], inputs: Inputs, before: Condition) -> Any:
        return {}

    def __call__(
        self, params: Any, inputs: Inputs, before: Condition, encoder: Encoder
    ) -> Condition:
        depth = inputs["depth"].astype(jnp.float32)
        low, high = (of(depth, axis=(1, 2), keepdims=True) for of in (jnp.min, jnp.max))
        spread = jnp.where(high > low, high - low, 1.0)
        return Condition(concat=(2 * (depth - low) / spread - 1)[..., None])
