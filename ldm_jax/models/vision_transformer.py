"""Vision transformers: patches of an image as tokens (Dosovitskiy 2020, arXiv:2010.11929), and
CLIP's image encoder of them."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.models.layers import Embed, LayerNorm, check_sides, fold, lecun, zeros
from ldm_jax.models.text import TextLayer, TextLayers


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its side, as one matmul over patches, rows first."""

    features: int
    patch_size: int
    use_bias: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b l d"]:
        p, channels = self.patch_size, pixels.shape[-1]
        check_sides(pixels, p, "the image")
        kernel = self.param("kernel", lecun, (p, p, channels, self.features), jnp.float32)
        patches = fold(pixels.astype(self.dtype), p)
        patches = patches.reshape(pixels.shape[0], -1, patches.shape[-1])
        x = patches @ kernel.astype(self.dtype).reshape(-1, self.features)
        if self.use_bias:
            bias = self.param("bias", zeros, (self.features,), jnp.float32)
            x = x + bias.astype(self.dtype)[None, None]
        return x


def with_class_token(
    token: Float[Array, "d"], patches: Float[Array, "b l d"]
) -> Float[Array, "b l1 d"]:
    """The token before the patches of each image."""
    first = jnp.broadcast_to(token.astype(patches.dtype), (patches.shape[0], 1, token.shape[0]))
    return jnp.concatenate([first, patches], axis=1)


class CLIPVisionEmbeddings(nn.Module):
    """The class token and the patches, each with the position's embedding."""

    config: cfg.CLIPVision
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w c"]) -> Float[Array, "b l d"]:
        config = self.config
        if pixels.shape[1:3] != (config.image_size,) * 2:
            raise ValueError(
                f"images of {pixels.shape[1]} x {pixels.shape[2]} pixels; this image encoder takes "
                f"{config.image_size} x {config.image_size}"
            )
        init = nn.initializers.normal(config.width**-0.5)
        token = self.param("class_embedding", init, (config.width,), jnp.float32)
        embed = PatchEmbedding(
            config.width, config.patch_size, False, self.dtype, name="patch_embedding"
        )
        x = with_class_token(token, embed(pixels))
        places = Embed(
            x.shape[1], config.width, dtype=self.dtype, embedding_init=init,
            name="position_embedding",
        )  # fmt: skip
        return x + places.first(x.shape[1])[None]


class CLIPVisionStack(nn.Module):
    """CLIP's image encoder (Radford 2021, section 2.4): the class token's state after the last
    norm, of pixels that are normalised as CLIP's are."""

    config: cfg.CLIPVision
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, pixels: Float[Array, "b h w 3"]) -> Float[Array, "b d"]:
        config = self.config
        x = CLIPVisionEmbeddings(config, self.dtype, name="embeddings")(pixels)
        # The name is written so in the published weights.
        x = LayerNorm(self.dtype, name="pre_layrnorm")(x)
        layer = partial(
            nn.remat(TextLayer) if self.remat else TextLayer, config.num_heads,
            config.intermediate, config.activation, False, False, self.dtype,
        )  # fmt: skip
        x = TextLayers(config.layers, layer, name="encoder")(x)
        return LayerNorm(self.dtype, name="post_layernorm")(x[:, 0])
