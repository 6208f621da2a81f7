"""The KL autoencoder between images and latents (Rombach 2022), named as in diffusers."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from ldm_jax import config as cfg
from ldm_jax.models.bottleneck import Gaussian, gaussian
from ldm_jax.models.layers import (
    Conv,
    Downsample,
    GroupNorm,
    ModuleList,
    ResnetBlock,
    Upsample,
    check_sides,
    fold,
    unfold,
)
from ldm_jax.models.transformer import Attention

# Every norm of the autoencoder, its attention's included.
EPSILON = 1e-6


class Level(nn.Module):
    """The residual blocks of one resolution, then a change of resolution or none."""

    config: cfg.Autoencoder
    features: int
    blocks: int
    dtype: DTypeLike
    remat: bool
    resample: str | None
    """`downsamplers`, `upsamplers` or None."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        block = _resnet(self.config, self.features, self.dtype, self.remat)
        resnets = ModuleList((block,) * self.blocks, name="resnets")
        for i in range(self.blocks):
            x = resnets(i, x)
        if self.resample is None:
            return x
        if self.resample == "downsamplers":
            change = partial(Downsample, self.features, (0, 1), self.dtype)
        else:
            change = partial(Upsample, self.features, self.dtype)
        return ModuleList((change,), name=self.resample)(0, x)


class Middle(nn.Module):
    """Residual block, attention with one head unless the config has none, residual block."""

    config: cfg.Autoencoder
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        b, h, w, c = x.shape
        block = _resnet(self.config, c, self.dtype, self.remat)
        resnets = ModuleList((block, block), name="resnets")
        x = resnets(0, x)
        if self.config.mid_attention:
            kind = nn.remat(Attention) if self.remat else Attention
            attend = partial(
                kind, 1, self.dtype, qkv_bias=True,
                norm_groups=self.config.norm_num_groups, norm_epsilon=EPSILON,
            )  # fmt: skip
            attentions = ModuleList((attend,), name="attentions")
            x = attentions(0, x.reshape(b, h * w, c)).reshape(b, h, w, c)
        return resnets(1, x)


class Encoder(nn.Module):
    """Images to posterior moments before `quant_conv`."""

    config: cfg.Autoencoder
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 z2"]:
        config, widths = self.config, self.config.block_out_channels
        x = Conv(widths[0], dtype=self.dtype, name="conv_in")(x)
        levels = tuple(
            partial(
                Level, config, width, config.layers_per_block, self.dtype, self.remat,
                "downsamplers" if i < len(widths) - 1 else None,
            )
            for i, width in enumerate(widths)
        )  # fmt: skip
        down_blocks = ModuleList(levels, name="down_blocks")
        for i in range(len(levels)):
            x = down_blocks(i, x)
        x = Middle(config, self.dtype, self.remat, name="mid_block")(x)
        return _head(x, config, 2 * config.latent_channels, self.dtype)


class Decoder(nn.Module):
    """Latents after `post_quant_conv` to images, before pixels are unfolded."""

    config: cfg.Autoencoder
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, z: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
        config, widths = self.config, self.config.block_out_channels[::-1]
        x = Conv(widths[0], dtype=self.dtype, name="conv_in")(z)
        x = Middle(config, self.dtype, self.remat, name="mid_block")(x)
        levels = tuple(
            partial(
                Level, config, width, config.layers_per_block + 1, self.dtype, self.remat,
                "upsamplers" if i < len(widths) - 1 else None,
            )
            for i, width in enumerate(widths)
        )  # fmt: skip
        up_blocks = ModuleList(levels, name="up_blocks")
        for i in range(len(levels)):
            x = up_blocks(i, x)
        return _head(x, config, config.image_channels * config.patch_size**2, self.dtype)


class AutoencoderKL(nn.Module):
    """Images [-1, 1] to a Gaussian over unscaled latents, and back.

    With `patch_size` p > 1, p x p pixels are folded into channels before the first
    convolution and unfolded after the last.
    """

    config: cfg.Autoencoder
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        config = self.config
        pointwise = partial(Conv, kernel_size=1, padding=(0, 0), dtype=self.dtype)
        self.encoder = Encoder(config, self.dtype, self.remat)
        self.quant_conv = pointwise(2 * config.latent_channels)
        self.post_quant_conv = pointwise(config.latent_channels)
        self.decoder = Decoder(config, self.dtype, self.remat)

    def encode(self, images: Float[Array, "b h w c"]) -> Gaussian:
        """The posterior of images in [-1, 1]; sides must be multiples of `config.factor`."""
        check_sides(images, self.config.factor, "the image")
        x = fold(images, self.config.patch_size)
        return gaussian(self.quant_conv(self.encoder(x)))

    def decode(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
        """The images, about [-1, 1] and not clipped, of unscaled latents."""
        x = self.decoder(self.post_quant_conv(latents))
        return unfold(x.astype(jnp.float32), self.config.patch_size)

    def __call__(
        self, images: Float[Array, "b h w c"], noise: Float[Array, "b h2 w2 z"]
    ) -> tuple[Float[Array, "b h w c"], Gaussian]:
        """The reconstruction from a sample of the posterior drawn with `noise`, and both."""
        posterior = self.encode(images)
        return self.decode(posterior.sample(noise)), posterior


def _resnet(config: cfg.Autoencoder, features: int, dtype: DTypeLike, remat: bool) -> partial:
    kind = nn.remat(ResnetBlock) if remat else ResnetBlock
    return partial(kind, features, config.norm_num_groups, EPSILON, dtype)


def _head(x: Array, config: cfg.Autoencoder, features: int, dtype: DTypeLike) -> Array:
    x = GroupNorm(config.norm_num_groups, EPSILON, dtype, name="conv_norm_out")(x)
    return Conv(features, dtype=dtype, name="conv_out")(nn.silu(x))
