"""What first stages, the U-Net and a classifier of noisy latents are made of."""

from typing import Annotated, Literal

from ldm_jax.config.bottlenecks import FSQ, KL, LFQ, VQ, Bottleneck, Gumbel
from ldm_jax.config.checks import (
    Decay,
    Depth,
    Entries,
    Finite,
    Positive,
    Width,
    Within,
    require,
    require_blocks,
    require_groups,
    settings,
)


@settings
class Autoencoder:
    """Autoencoder; the factor between pixels and latents is `patch_size * 2**(levels - 1)`."""

    image_channels: Width = 3
    latent_channels: Width = 4
    block_out_channels: tuple[Width, ...] = (128, 256, 512, 512)
    layers_per_block: Depth = 2
    norm_num_groups: Width = 32
    mid_attention: bool = True
    attention: tuple[bool, ...] = ()
    """For each level, finest first, whether attention follows its residual blocks; (): none."""
    bottleneck: Bottleneck = KL()
    """What stands between encoder and decoder."""
    patch_size: Annotated[int, Within(1, 256)] = 1
    """Pixels folded into channels before the first convolution, and back after the last."""
    latent_scale: Positive | None = None
    """What latents are multiplied by; None measures 1/std on the first global batch."""
    latent_mean: tuple[Finite, ...] = ()
    """What each channel of the latents is reduced by before it is scaled; (): by nothing."""
    latent_std: tuple[Positive, ...] = ()
    """What each channel is divided by after that: (z - latent_mean) / latent_std * latent_scale."""

    def __post_init__(self) -> None:
        require_groups("Autoencoder", self.block_out_channels, self.norm_num_groups)
        levels = len(self.block_out_channels)
        require_blocks("Autoencoder", levels, self.layers_per_block)
        require(len(self.attention) in (0, levels), "Autoencoder.attention", self.attention,
                f"empty or a tuple of {levels} entries")  # fmt: skip
        for name in ("latent_mean", "latent_std"):
            value, other = getattr(self, name), self.latent_mean or self.latent_std
            require(len(value) == (self.latent_channels if other else 0), f"Autoencoder.{name}",
                    value, f"a tuple of {self.latent_channels} entries, one for each of "
                    "latent_channels, as latent_mean and latent_std both are, or ()")  # fmt: skip
        require(self.latent_scale is not None or not self.latent_mean, "Autoencoder.latent_scale",
                self.latent_scale, "a number beside latent_mean and latent_std")  # fmt: skip
        match self.bottleneck:
            case FSQ(levels=values):
                require(len(values) == self.latent_channels, "bottleneck.levels", values,
                        f"a tuple of {self.latent_channels} entries, one for each of "
                        "latent_channels")  # fmt: skip
            case LFQ():
                require(self.latent_channels < 31, "latent_channels", self.latent_channels,
                        "below 31 with LFQ, whose codes have as many bits")  # fmt: skip

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return self.patch_size * 2 ** (len(self.block_out_channels) - 1)

    @property
    def encoded_channels(self) -> int:
        """Channels that the encoder gives: mean and log-variance of each latent, or itself."""
        return self.latent_channels * (2 if isinstance(self.bottleneck, KL) else 1)

    @property
    def codes(self) -> int | None:
        """Number of different codes of one latent; None where it is not quantised."""
        match self.bottleneck:
            case VQ(size=size) | Gumbel(size=size):
                return size
            case FSQ() as fsq:
                return fsq.size
            case LFQ():
                return 2**self.latent_channels
            case KL():
                return None


@settings
class Pixels:
    """The first stage of pixel diffusion: its latents are the pixels. It has no parameters."""

    image_channels: Width = 3

    @property
    def latent_channels(self) -> int:
        """Channels of a latent: those of the image."""
        return self.image_channels

    @property
    def latent_scale(self) -> float:
        """What latents are multiplied by: pixels stay in [-1, 1]."""
        return 1.0

    @property
    def latent_mean(self) -> tuple[float, ...]:
        """What each channel is reduced by: nothing."""
        return ()

    latent_std = latent_mean
    """What each channel is divided by: nothing."""

    @property
    def factor(self) -> int:
        """Pixels per latent along one side."""
        return 1


FirstStage = Autoencoder | Pixels


@settings
class UNet:
    """Denoising U-Net. Tuples have one entry for each level, finest first.

    In a run, channels and widths that are None or 0 follow from its first stage and its
    conditioners; see `config/model.py: fit_unet`.
    """

    in_channels: Width | None = None
    """Channels of the latents."""
    out_channels: Width | None = None
    """Channels of the prediction: those of the latents, or twice as many where the variance is
    learned."""
    concat_channels: Annotated[int, Within(0, 65536)] = 0
    """Channels of a spatial condition that is concatenated to the latents."""
    patch_size: Annotated[int, Within(1, 256)] = 1
    """Latents folded into channels before the first convolution, and back after the last."""
    block_out_channels: tuple[Width, ...] = (320, 640, 1280, 1280)
    layers_per_block: Depth = 2
    attention: tuple[bool, ...] = (True, True, True, False)
    attention_kind: Literal["transformer", "plain"] = "transformer"
    """`plain` is self-attention alone; `transformer` adds cross-attention and feed-forward."""
    transformer_layers: Depth = 1
    num_heads: tuple[Width, ...] = (8, 8, 8, 8)
    use_linear_projection: bool = False
    """Linear layers around the transformer (SD 2) instead of 1x1 convolutions (SD 1)."""
    context_dim: Width | None = None
    """Width of the cross-attention context; without, the second attention attends to itself."""
    pooled_dim: Width | None = None
    """Width of a pooled condition that is added to the time embedding."""
    class_count: Annotated[int, Within(1, 2**24 + 1)] | None = None
    """Number of classes embedded into the time embedding, the unconditional one included."""
    time_scale_shift: bool = False
    """FiLM: the time embedding scales and shifts, instead of being added."""
    resblock_updown: bool = False
    """Residual blocks change the resolution, instead of a plain convolution."""
    norm_num_groups: Width = 32
    dropout: Decay = 0.0

    def __post_init__(self) -> None:
        require_groups("UNet", self.block_out_channels, self.norm_num_groups)
        levels = len(self.block_out_channels)
        transformers = self.transformer_layers if any(self.attention) else 1
        require_blocks("UNet", levels, self.layers_per_block, transformers)
        for name in ("attention", "num_heads"):
            value = getattr(self, name)
            require(len(value) == levels, f"UNet.{name}", value, f"a tuple of {levels} entries")
        for channels, heads in zip(self.block_out_channels, self.num_heads, strict=True):
            require(
                channels % heads == 0,
                "UNet.num_heads",
                self.num_heads,
                f"divisors of block_out_channels {self.block_out_channels}",
            )
        if self.attention_kind == "plain":
            allowed = "None when attention_kind is 'plain', which has no cross-attention"
            require(self.context_dim is None, "UNet.context_dim", self.context_dim, allowed)

    @property
    def factor(self) -> int:
        """Latents along one side of what the coarsest level sees as one."""
        return self.patch_size * 2 ** (len(self.block_out_channels) - 1)

    @property
    def side_multiple(self) -> int:
        """What the sides of latents must be multiples of; convolutions can halve odd sides."""
        return self.factor if self.resblock_updown else self.patch_size


@settings
class Classifier:
    """The way down of a U-Net, then attention pooling. Tuples: one entry a level, finest first."""

    in_channels: Width = 4
    num_classes: Entries = 10
    block_out_channels: tuple[Width, ...] = (64, 128)
    layers_per_block: Depth = 1
    attention: tuple[bool, ...] = (False, True)
    num_heads: tuple[Width, ...] = (4, 4)
    """Of each level's attention; the last one's are also the pooling's."""
    time_scale_shift: bool = True
    """FiLM: the time embedding scales and shifts, instead of being added."""
    resblock_updown: bool = True
    """Residual blocks change the resolution, instead of a plain convolution."""
    norm_num_groups: Width = 32
    dropout: Decay = 0.0

    def __post_init__(self) -> None:
        self.encoder  # noqa: B018 - its own checks

    @property
    def encoder(self) -> UNet:
        """The U-Net whose way down this is.

        Raises:
            ConfigError: settings that no U-Net can have; they are named as the U-Net's.
        """
        return UNet(
            in_channels=self.in_channels, out_channels=self.in_channels,
            block_out_channels=self.block_out_channels, layers_per_block=self.layers_per_block,
            attention=self.attention, attention_kind="plain", num_heads=self.num_heads,
            context_dim=None, time_scale_shift=self.time_scale_shift,
            resblock_updown=self.resblock_updown, norm_num_groups=self.norm_num_groups,
            dropout=self.dropout,
        )  # fmt: skip
