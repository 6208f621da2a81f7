"""The denoising U-Net (Ho 2020, Dhariwal 2021, Rombach 2022), named as in diffusers."""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

from ldm_jax import config as cfg
from ldm_jax.models.conditioners import Condition
from ldm_jax.models.layers import (
    Conv,
    Downsample,
    Embed,
    GroupNorm,
    ModuleList,
    ResnetBlock,
    TimeEmbedding,
    Upsample,
    check_sides,
    fold,
    timestep_embedding,
    unfold,
    zeros,
)
from ldm_jax.models.transformer import PixelAttention, SpatialTransformer

# Every norm outside the spatial transformer.
EPSILON = 1e-5


class DownLevel(nn.Module):
    """Residual blocks and attention of one resolution, then half of it."""

    config: cfg.UNet
    level: int
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        time: Float[Array, "b e"],
        context: Float[Array, "b m k"] | None,
        dropout: Key[Array, "b"] | None,
    ) -> tuple[Array, tuple[Array, ...]]:
        """The level's output, and what the way up will need of it."""
        config, features = self.config, self.config.block_out_channels[self.level]
        resnets, attentions = _blocks(self, config.layers_per_block)
        skips = []
        for i in range(config.layers_per_block):
            x = resnets(i, x, time, dropout)
            if attentions is not None:
                x = attentions(i, x, context)
            skips.append(x)
        if self.level < len(config.block_out_channels) - 1:
            if config.resblock_updown:
                change = _resnet(config, self.level, self.dtype, self.remat, resample="halve")
                x = ModuleList((change,), name="downsamplers")(0, x, time, dropout)
            else:
                change = partial(Downsample, features, (1, 1), self.dtype)
                x = ModuleList((change,), name="downsamplers")(0, x)
            skips.append(x)
        return x, tuple(skips)


class UpLevel(nn.Module):
    """Residual blocks, each over one skip, and attention of one resolution, then doubling."""

    config: cfg.UNet
    level: int
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        skips: tuple[Array, ...],
        size: tuple[int, int] | None,
        time: Float[Array, "b e"],
        context: Float[Array, "b m k"] | None,
        dropout: Key[Array, "b"] | None,
    ) -> Float[Array, "b h2 w2 d"]:
        """The next level's input, of height and width `size`; None at the finest level."""
        config = self.config
        resnets, attentions = _blocks(self, len(skips))
        for i, skip in enumerate(skips):
            x = resnets(i, jnp.concatenate([x, skip], axis=-1), time, dropout)
            if attentions is not None:
                x = attentions(i, x, context)
        if self.level > 0:
            if config.resblock_updown:
                change = _resnet(config, self.level, self.dtype, self.remat, resample="double")
                x = ModuleList((change,), name="upsamplers")(0, x, time, dropout)
            else:
                change = partial(Upsample, x.shape[-1], self.dtype)
                x = ModuleList((change,), name="upsamplers")(0, x, size)
        return x


class Middle(nn.Module):
    """Residual block, attention, residual block at the coarsest resolution."""

    config: cfg.UNet
    dtype: DTypeLike
    remat: bool

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        time: Float[Array, "b e"],
        context: Float[Array, "b m k"] | None,
        dropout: Key[Array, "b"] | None,
    ) -> Float[Array, "b h w c"]:
        level = len(self.config.block_out_channels) - 1
        resnet = _resnet(self.config, level, self.dtype, self.remat)
        attend = _attention(self.config, level, self.dtype, self.remat, only_cross=False)
        resnets = ModuleList((resnet, resnet), name="resnets")
        x = resnets(0, x, time, dropout)
        x = ModuleList((attend,), name="attentions")(0, x, context)
        return resnets(1, x, time, dropout)


class Control(NamedTuple):
    """What a ControlNet adds inside a U-Net (Zhang 2023); what has one pixel is for all."""

    skips: tuple[Float[Array, "b h w c"], ...]
    """For each of the skips, from the first convolution on."""
    middle: Float[Array, "b h w c"]
    """For what the middle block gives."""


class WayDown(nn.Module):
    """The first convolution, the way down and the middle of a U-Net: what U-Net and ControlNet
    both have."""

    config: cfg.UNet
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        config, widths = self.config, self.config.block_out_channels
        self.conv_in = Conv(widths[0], dtype=self.dtype)
        self.time_embedding = TimeEmbedding(4 * widths[0], self.dtype)
        if config.class_count is not None:
            self.class_embedding = Embed(
                config.class_count, 4 * widths[0], dtype=self.dtype,
                embedding_init=nn.initializers.normal(1.0),
            )  # fmt: skip
        if config.pooled_dim is not None:
            self.add_embedding = nn.Dense(4 * widths[0], dtype=self.dtype)
        level = partial(DownLevel, config, dtype=self.dtype, remat=self.remat)
        self.down_blocks = ModuleList(tuple(partial(level, i) for i in range(len(widths))))
        self.mid_block = Middle(config, self.dtype, self.remat)

    def enter(
        self, x: Float[Array, "b h w c"], t: Num[Array, " b"], condition: Condition
    ) -> tuple[Float[Array, "b h2 w2 d"], Float[Array, "b e"]]:
        """What the first convolution gives, and the time embedding.

        Raises:
            ValueError: sides that are no multiples of `config.side_multiple`, or a condition with
                other parts than the config has.
        """
        config = self.config
        check_sides(x, config.side_multiple, "the latent")
        _check_condition(config, condition)
        time = self._time(t, condition)
        if condition.concat is not None:
            x = jnp.concatenate([x, condition.concat.astype(x.dtype)], axis=-1)
        return self.conv_in(fold(x, config.patch_size)), time

    def descend(
        self,
        x: Float[Array, "b h w c"],
        time: Float[Array, "b e"],
        context: Float[Array, "b m k"] | None,
        dropout: Key[Array, "b"] | None,
    ) -> tuple[Float[Array, "b h2 w2 d"], list[Array]]:
        """From what `enter` gives to what the middle gives, and the skips on the way."""
        skips = [x]
        for i in range(len(self.config.block_out_channels)):
            x, more = self.down_blocks(i, x, time, context, dropout)
            skips.extend(more)
        return self.mid_block(x, time, context, dropout), skips

    def _time(self, t: Num[Array, " b"], condition: Condition) -> Float[Array, "b e"]:
        """The time embedding, with the class and the pooled vector added."""
        width = self.config.block_out_channels[0]
        time = self.time_embedding(timestep_embedding(t, width).astype(self.dtype))
        if condition.label is not None:
            time = time + self.class_embedding(condition.label)
        if condition.pooled is not None:
            time = time + self.add_embedding(condition.pooled)
        return time


class UNet2D(WayDown):
    """Predicts what the parameterisation asks for from noisy latents, time and condition.

    Beyond diffusers' `UNet2DConditionModel`: channels of a spatial condition are concatenated
    to the latents, and a pooled vector is projected (`add_embedding`) and added to the time
    embedding; with `patch_size` p > 1, p x p latents are folded into channels before the first
    convolution and unfolded after the last. Blocks with a residual around them start as the
    identity, and the output at 0.
    """

    def setup(self) -> None:
        super().setup()
        config, count = self.config, len(self.config.block_out_channels)
        level = partial(UpLevel, config, dtype=self.dtype, remat=self.remat)
        self.up_blocks = ModuleList(tuple(partial(level, i) for i in reversed(range(count))))
        self.conv_norm_out = GroupNorm(config.norm_num_groups, EPSILON, self.dtype)
        features = config.out_channels * config.patch_size**2
        self.conv_out = Conv(features, dtype=self.dtype, kernel_init=zeros)

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Num[Array, " b"],
        condition: Condition,
        dropout: Key[Array, "b"] | None = None,
        control: Control | None = None,
    ) -> Float[Array, "b h w d"]:
        """`t` in units of timesteps, 0 to num_timesteps, integer or not; output in float32.

        In training `dropout` has a key for each example. `control` is added to the skips and to
        what the middle gives.

        Raises:
            ValueError: sides that are no multiples of `config.side_multiple`, or a condition with
                other parts than the config has.
        """
        config, context = self.config, condition.context
        x, time = self.enter(x, t, condition)
        x, skips = self.descend(x, time, context, dropout)
        if control is not None:
            x = x + control.middle
            skips = [skip + more for skip, more in zip(skips, control.skips, strict=True)]
        for i in range(len(config.block_out_channels)):
            take = [skips.pop() for _ in range(config.layers_per_block + 1)]
            # Halving rounds odd sides up, so doubling must be told where it came from.
            size = skips[-1].shape[1:3] if skips else None
            x = self.up_blocks(i, x, tuple(take), size, time, context, dropout)
        out = self.conv_out(nn.silu(self.conv_norm_out(x)))
        return unfold(out.astype(jnp.float32), config.patch_size)


def _check_condition(config: cfg.UNet, condition: Condition) -> None:
    wanted = {
        "context": (config.context_dim, condition.context),
        "pooled": (config.pooled_dim, condition.pooled),
        "label": (config.class_count, condition.label),
        "concat": (config.concat_channels or None, condition.concat),
    }
    for name, (size, given) in wanted.items():
        if (size is None) != (given is None):
            state = "lacks" if given is None else "has"
            raise ValueError(
                f"the condition {state} {name!r}, but the U-Net's config sets its size to {size}; "
                "give exactly the parts that the config names"
            )
        if given is not None and name != "label" and given.shape[-1] != size:
            raise ValueError(
                f"condition.{name} has {given.shape[-1]} channels; the U-Net's config says {size}"
            )


def _resnet(
    config: cfg.UNet, level: int, dtype: DTypeLike, remat: bool, resample: str | None = None
) -> partial:
    kind = nn.remat(ResnetBlock) if remat else ResnetBlock
    return partial(
        kind, config.block_out_channels[level], config.norm_num_groups, EPSILON, dtype,
        time_scale_shift=config.time_scale_shift, dropout=config.dropout, zero_close=True,
        resample=resample,
    )  # fmt: skip


def _attention(
    config: cfg.UNet, level: int, dtype: DTypeLike, remat: bool, only_cross: bool
) -> partial:
    heads = config.num_heads[level]
    if config.attention_kind == "plain":
        kind = nn.remat(PixelAttention) if remat else PixelAttention
        return partial(
            kind, heads, dtype, qkv_bias=True, norm_groups=config.norm_num_groups,
            norm_epsilon=EPSILON, zero_close=True,
        )  # fmt: skip
    kind = nn.remat(SpatialTransformer) if remat else SpatialTransformer
    return partial(
        kind, heads, config.transformer_layers, config.norm_num_groups,
        config.use_linear_projection, only_cross, dtype,
    )  # fmt: skip


def _blocks(parent: DownLevel | UpLevel, count: int) -> tuple[ModuleList, ModuleList | None]:
    """The lists `resnets` and `attentions` of a level; the second is None where it has none."""
    config, level = parent.config, parent.level
    resnet = _resnet(config, level, parent.dtype, parent.remat)
    resnets = ModuleList((resnet,) * count, name="resnets")
    if not config.attention[level]:
        return resnets, None
    only_cross = config.only_cross_attention[level] if config.only_cross_attention else False
    attend = _attention(config, level, parent.dtype, parent.remat, only_cross)
    return resnets, ModuleList((attend,) * count, name="attentions")
