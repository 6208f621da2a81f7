"""The autoencoders between images and latents (Esser 2021, Rombach 2022), named as in diffusers."""

from functools import partial

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from ldm_jax import config as cfg
from ldm_jax.models.bottlenecks import (
    Bottlenecked,
    Codebook,
    FiniteScalar,
    Gaussian,
    GumbelCodebook,
    LookupFree,
    Point,
    gaussian,
)
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
from ldm_jax.models.transformer import PixelAttention

# Every norm of the autoencoder, its attention's included.
EPSILON = 1e-6


class Level(nn.Module):
    """Residual blocks and attention of one resolution, then a change of it or none."""

    config: cfg.Autoencoder
    level: int
    blocks: int
    dtype: DTypeLike
    remat: bool
    resample: str | None
    """`downsamplers`, `upsamplers` or None."""

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        config, features = self.config, self.config.block_out_channels[self.level]
        block = _resnet(config, features, self.dtype, self.remat)
        resnets = ModuleList((block,) * self.blocks, name="resnets")
        attentions = None
        if any(config.attention) and config.attention[self.level]:
            attend = _attention(config, self.dtype, self.remat)
            attentions = ModuleList((attend,) * self.blocks, name="attentions")
        for i in range(self.blocks):
            x = resnets(i, x)
            if attentions is not None:
                x = attentions(i, x)
        if self.resample is None:
            return x
        if self.resample == "downsamplers":
            change = partial(Downsample, features, (0, 1), self.dtype)
        else:
            change = partial(Upsample, features, self.dtype)
        return ModuleList((change,), name=self.resample)(0, x)


class Middle(nn.Module):
    """Residual block, attention unless the config has none, residual block."""

    config: cfg.Autoencoder
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        block = _resnet(self.config, x.shape[-1], self.dtype, self.remat)
        resnets = ModuleList((block, block), name="resnets")
        x = resnets(0, x)
        if self.config.mid_attention:
            attend = _attention(self.config, self.dtype, self.remat)
            x = ModuleList((attend,), name="attentions")(0, x)
        return resnets(1, x)


class Encoder(nn.Module):
    """Images to what `quant_conv` makes moments (KL) or latents (others) of."""

    config: cfg.Autoencoder
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 z2"]:
        config, widths = self.config, self.config.block_out_channels
        x = Conv(widths[0], dtype=self.dtype, name="conv_in")(x)
        levels = tuple(
            partial(
                Level, config, level, config.layers_per_block, self.dtype, self.remat,
                "downsamplers" if level < len(widths) - 1 else None,
            )
            for level in range(len(widths))
        )  # fmt: skip
        down_blocks = ModuleList(levels, name="down_blocks")
        for i in range(len(levels)):
            x = down_blocks(i, x)
        x = Middle(config, self.dtype, self.remat, name="mid_block")(x)
        return _head(x, config, config.encoded_channels, self.dtype)


class Decoder(nn.Module):
    """Latents after `post_quant_conv` to images, before pixels are unfolded."""

    config: cfg.Autoencoder
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(self, z: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
        config, widths = self.config, self.config.block_out_channels
        x = Conv(widths[-1], dtype=self.dtype, name="conv_in")(z)
        x = Middle(config, self.dtype, self.remat, name="mid_block")(x)
        levels = tuple(
            partial(
                Level, config, level, config.layers_per_block + 1, self.dtype, self.remat,
                "upsamplers" if level > 0 else None,
            )
            for level in reversed(range(len(widths)))
        )  # fmt: skip
        up_blocks = ModuleList(levels, name="up_blocks")
        for i in range(len(levels)):
            x = up_blocks(i, x)
        return _head(x, config, config.image_channels * config.patch_size**2, self.dtype)


class Autoencoder(nn.Module):
    """Images [-1, 1] to unscaled latents, and back.

    With bottleneck KL images are encoded to a Gaussian over latents. With all others they are
    encoded to latents as they are, and decoding quantises these first, so that diffusion works on
    the latents before quantisation (Rombach 2022, section 3.1).

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
        self.quant_conv = pointwise(config.encoded_channels)
        if config.codes is not None:
            self.quantize = _quantizer(config)
        self.post_quant_conv = pointwise(config.latent_channels)
        self.decoder = Decoder(config, self.dtype, self.remat)

    def encode(self, images: Float[Array, "b h w c"]) -> Gaussian | Point:
        """The posterior (KL) or the latents before quantisation of images in [-1, 1].

        Raises:
            ValueError: sides that are no multiples of `config.factor`.
        """
        check_sides(images, self.config.factor, "the image")
        x = self.quant_conv(self.encoder(fold(images, self.config.patch_size)))
        if self.config.codes is None:
            return gaussian(x)
        return Point(x.astype(jnp.float32))

    def decode(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
        """The images, about [-1, 1] and not clipped, of unscaled latents, quantised here if any."""
        if self.config.codes is not None:
            latents = self.quantize(latents).latents
        return self._decode(latents)

    def decode_codes(self, indices: Int[Array, "b h w"]) -> Float[Array, "b h2 w2 c"]:
        """The images, about [-1, 1] and not clipped, of codes that `quantize` gave.

        Raises:
            ValueError: there are no codes (KL).
        """
        if self.config.codes is None:
            raise ValueError("an autoencoder with bottleneck KL has no codes; decode its latents")
        return self._decode(self.quantize.lookup(indices))

    def __call__(
        self,
        images: Float[Array, "b h w c"],
        noise: Float[Array, "b h2 w2 n"] | None = None,
        temperature: Float[Array, ""] | float | None = None,
    ) -> tuple[Float[Array, "b h w c"], Bottlenecked]:
        """The reconstruction, and all that a training loss needs of the bottleneck.

        Args:
            noise: KL: standard normal, one for each latent, to sample the posterior with. Gumbel:
                standard Gumbel, one for each code. Others do not look at it. None: the mode.
            temperature: Gumbel's, where it changes in training; None: the config's.
        """
        posterior = self.encode(images)
        if isinstance(posterior, Gaussian):
            latents = posterior.mode if noise is None else posterior.sample(noise)
            kl = posterior.kl().mean()
            passed = Bottlenecked(posterior, latents, kl, {"kl": kl})
        else:
            given = (noise, temperature) if isinstance(self.config.bottleneck, cfg.Gumbel) else ()
            found = self.quantize(posterior.mode, *given)
            passed = Bottlenecked(
                posterior, found.latents, found.loss, found.terms, found.indices, found.compared
            )
        return self._decode(passed.latents), passed

    def _decode(self, latents: Float[Array, "b h w z"]) -> Float[Array, "b h2 w2 c"]:
        x = self.decoder(self.post_quant_conv(latents))
        return unfold(x.astype(jnp.float32), self.config.patch_size)


def _quantizer(config: cfg.Autoencoder) -> nn.Module:
    """The module that replaces latents by codes."""
    match config.bottleneck:
        case cfg.VQ() as vq:
            return Codebook(vq, config.latent_channels)
        case cfg.Gumbel() as gumbel:
            return GumbelCodebook(gumbel, config.latent_channels)
        case cfg.FSQ() as fsq:
            return FiniteScalar(fsq)
        case cfg.LFQ() as lfq:
            return LookupFree(lfq, config.latent_channels)


def _resnet(config: cfg.Autoencoder, features: int, dtype: DTypeLike, remat: bool) -> partial:
    kind = nn.remat(ResnetBlock) if remat else ResnetBlock
    return partial(kind, features, config.norm_num_groups, EPSILON, dtype)


def _attention(config: cfg.Autoencoder, dtype: DTypeLike, remat: bool) -> partial:
    """One head, as wide as the level."""
    kind = nn.remat(PixelAttention) if remat else PixelAttention
    return partial(
        kind, 1, dtype, qkv_bias=True, norm_groups=config.norm_num_groups, norm_epsilon=EPSILON
    )


def _head(x: Array, config: cfg.Autoencoder, features: int, dtype: DTypeLike) -> Array:
    x = GroupNorm(config.norm_num_groups, EPSILON, dtype, name="conv_norm_out")(x)
    return Conv(features, dtype=dtype, name="conv_out")(nn.silu(x))
