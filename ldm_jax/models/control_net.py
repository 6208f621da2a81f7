"""ControlNet (Zhang 2023): a copy of a U-Net's way down that reads a hint; named as in
diffusers."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, Num

from ldm_jax import config as cfg
from ldm_jax.models.conditioners import Condition, Hint
from ldm_jax.models.layers import Conv, ModuleList, check_sides, zeros
from ldm_jax.models.unet import Control, WayDown

EMBEDDING = "controlnet_cond_embedding"
"""The parameters of a `HintEmbedding` among those of its ControlNet."""


class HintEmbedding(nn.Module):
    """A hint as features of the latents' size: convolutions, each second one of which halves the
    sides, and a last one that starts at zero."""

    config: cfg.ControlBranch
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, hint: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
        """`hint` in [0, 1], its sides multiples of `config.hint_factor`.

        Raises:
            ValueError: other sides.
        """
        config, widths = self.config, self.config.hint_widths
        check_sides(hint, config.hint_factor, "the hint")
        x = nn.silu(Conv(widths[0], dtype=self.dtype, name="conv_in")(hint))
        make: list[partial] = []
        for width, narrower in zip(widths, widths[1:], strict=False):
            make += [
                partial(Conv, width, dtype=self.dtype),
                partial(Conv, narrower, stride=2, dtype=self.dtype),
            ]
        blocks = ModuleList(tuple(make), name="blocks")
        for i in range(len(make)):
            x = nn.silu(blocks(i, x))
        features = config.unet.block_out_channels[0]
        return Conv(features, dtype=self.dtype, kernel_init=zeros, name="conv_out")(x)


class ControlNet(WayDown):
    """What is added inside a U-Net, from noisy latents, time, condition and an embedded hint.

    Every residual goes through a convolution that starts at zero, so that a fresh one adds nothing.
    """

    branch: cfg.ControlBranch = cfg.ControlBranch()

    def setup(self) -> None:
        super().setup()
        widths, per_level = self.config.block_out_channels, self.config.layers_per_block
        setattr(self, EMBEDDING, HintEmbedding(self.branch, self.dtype))
        skips = [widths[0]]
        for i, width in enumerate(widths):
            skips += [width] * (per_level + (i < len(widths) - 1))
        zero = partial(Conv, kernel_size=1, padding=(0, 0), dtype=self.dtype, kernel_init=zeros)
        self.controlnet_down_blocks = ModuleList(tuple(partial(zero, width) for width in skips))
        self.controlnet_mid_block = zero(widths[-1])

    def __call__(
        self,
        x: Float[Array, "b h w c"],
        t: Num[Array, " b"],
        condition: Condition,
        hint: Float[Array, "b hh hw k"],
        dropout: Key[Array, "b"] | None = None,
    ) -> Control:
        """`hint` as `HintEmbedding` takes it; the others as of `UNet2D`.

        Raises:
            ValueError: as `UNet2D`, or a hint of another size than the latents'.
        """
        return self.embedded(x, t, condition, getattr(self, EMBEDDING)(hint), dropout)

    def embedded(
        self,
        x: Float[Array, "b h w c"],
        t: Num[Array, " b"],
        condition: Condition,
        features: Float[Array, "b h2 w2 d"],
        dropout: Key[Array, "b"] | None = None,
    ) -> Control:
        """As a call, with what `HintEmbedding` has made of the hint."""
        if not self.config.concat_channels:
            condition = condition._replace(concat=None)
        x, time = self.enter(x, t, condition)
        if features.shape[1:] != x.shape[1:]:
            raise ValueError(
                f"the hint gives {list(features.shape[1:])} features, the latents "
                f"{list(x.shape[1:])}; it must be {self.branch.hint_factor} times as large as they"
            )
        middle, skips = self.descend(x + features, time, condition.context, dropout)
        found = [self.controlnet_down_blocks(i, skip) for i, skip in enumerate(skips)]
        last = self.controlnet_mid_block(middle)
        if self.branch.global_pool:
            found, last = [_pooled(one) for one in found], _pooled(last)
        return Control(tuple(found), last)


def _pooled(x: Float[Array, "b h w c"]) -> Float[Array, "b 1 1 c"]:
    return x.mean((1, 2), keepdims=True)


def embed_hint(
    net: ControlNet, params: Mapping[str, Any], hint: Float[Array, "b h w c"]
) -> Float[Array, "b h2 w2 d"]:
    """What the ControlNet of these parameters makes of a hint in [0, 1], once for all times."""
    return HintEmbedding(net.branch, net.dtype).apply({"params": params[EMBEDDING]}, hint)


def controlled(
    nets: Sequence[ControlNet],
    params: Mapping[str, Any],
    x: Float[Array, "b h w c"],
    t: Num[Array, " b"],
    condition: Condition,
    dropout: Key[Array, "b"] | None = None,
) -> Control | None:
    """The sum of what all `nets` add, one for each hint of the condition, as strongly as these say.

    `params` are those of each, under `0`, `1`, …. None where there are no hints.
    """
    total: Control | None = None
    for i, (net, hint) in enumerate(zip(nets, condition.hints, strict=True)):
        one = net.apply(
            {"params": params[str(i)]}, x, t, condition, hint.features, dropout, method="embedded"
        )
        one = _weighed(one, hint, t)
        total = one if total is None else _sum(total, one)
    return total


def _weighed(control: Control, hint: Hint, t: Num[Array, " b"]) -> Control:
    first, last = hint.times[:, 0], hint.times[:, 1]
    t = t.astype(jnp.float32)
    strengths = jnp.where(((t <= first) & (t > last))[:, None], hint.strengths, 0.0)

    def weighed(i: int, residual: Array) -> Array:
        return residual * strengths[:, i, None, None, None].astype(residual.dtype)

    skips = tuple(weighed(i, skip) for i, skip in enumerate(control.skips))
    return Control(skips, weighed(-1, control.middle))


def _sum(a: Control, b: Control) -> Control:
    return Control(
        tuple(one + other for one, other in zip(a.skips, b.skips, strict=True)),
        a.middle + b.middle,
    )
