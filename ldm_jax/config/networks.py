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
    """Autoencoder (VAE). It downsamples by f = `patch_size * 2**(levels - 1)`."""

    image_channels: Width = 3
    latent_channels: Width = 4
    block_out_channels: tuple[Width, ...] = (128, 256, 512, 512)
    """Channels of each resolution level, finest first. Each further level halves the resolution."""
    layers_per_block: Depth = 2
    """Residual blocks at each level."""
    norm_num_groups: Width = 32
    """Groups of the group norms; must divide all block_out_channels."""
    mid_attention: bool = True
    """Self-attention at the coarsest level, between encoder and decoder blocks."""
    attention: tuple[bool, ...] = ()
    """Self-attention after the residual blocks of each level, finest first; (): at no level."""
    bottleneck: Bottleneck = KL()
    """What latents are: KL (as Stable Diffusion's VAE), or codes: VQ, Gumbel, FSQ, LFQ."""
    patch_size: Annotated[int, Within(1, 256)] = 1
    """Fold patches of this side in pixels into channels, before the first convolution and back
    after the last. 1: off. Cheaper, but less fine detail."""
    latent_scale: Positive | None = None
    """Factor on the latents before diffusion (Stable Diffusion: 0.18215). None: measure 1 / std on
    the first batch of stage two."""
    latent_mean: tuple[Finite, ...] = ()
    """Mean of each latent channel, subtracted before scaling; (): none."""
    latent_std: tuple[Positive, ...] = ()
    """Standard deviation of each latent channel, for (z - latent_mean) / latent_std *
    latent_scale."""

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
    """First stage of pixel diffusion: its latents are the pixels. It has no parameters."""

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

    Channels and widths that are None or 0 are set from the first stage and the conditioners; see
    `config/model.py: fit_unet`.
    """

    in_channels: Width | None = None
    """Latent channels; None: those of the first stage."""
    out_channels: Width | None = None
    """Channels of the prediction; None: the latent channels, or twice as many with
    diffusion.learned_variance."""
    concat_channels: Annotated[int, Within(0, 65536)] = 0
    """Channels of conditions concatenated to the latents, such as an inpainting mask."""
    patch_size: Annotated[int, Within(1, 256)] = 1
    """Fold patches of this side in latents into channels, before the first convolution and back
    after the last. 1: off. Makes the U-Net cheaper."""
    block_out_channels: tuple[Width, ...] = (320, 640, 1280, 1280)
    """Channels of each resolution level, finest first (Stable Diffusion: 320 640 1280 1280)."""
    layers_per_block: Depth = 2
    """Residual blocks at each level on the way down; one more on the way up."""
    attention: tuple[bool, ...] = (True, True, True, False)
    """Which levels have attention, finest first."""
    attention_kind: Literal["transformer", "plain"] = "transformer"
    """`transformer`: self-attention, cross-attention to the condition, and feed-forward; `plain`:
    self-attention only."""
    transformer_layers: Depth = 1
    """Transformer layers in each attention block."""
    num_heads: tuple[Width, ...] = (8, 8, 8, 8)
    """Attention heads at each level, finest first; must divide its channels."""
    use_linear_projection: bool = False
    """Linear layers around the transformer (Stable Diffusion 2) instead of 1x1 convolutions (1)."""
    context_dim: Width | None = None
    """Width of the cross-attention context, such as text embeddings (CLIP ViT-L: 768). None: set
    from the conditioners; if they give no context, self-attention is used twice."""
    only_cross_attention: tuple[bool, ...] = ()
    """On which levels both attentions of a transformer layer attend to the context (Stable
    Diffusion's x4 upscaler), finest first; (): on none. The middle block's never do."""
    pooled_dim: Width | None = None
    """Width of a pooled condition vector added to the time embedding."""
    class_count: Annotated[int, Within(1, 2**24 + 1)] | None = None
    """Number of classes embedded into the time embedding, including the unconditional one."""
    time_scale_shift: bool = False
    """Use the time embedding to scale and shift features (FiLM) instead of adding it."""
    resblock_updown: bool = False
    """Down- and upsample in residual blocks instead of with a plain convolution."""
    norm_num_groups: Width = 32
    """Groups of the group norms; must divide all block_out_channels."""
    dropout: Decay = 0.0
    """Dropout in the residual blocks; 0.1 or more can help on small data sets."""

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
        self._check_only_cross()

    def _check_only_cross(self) -> None:
        only, transformers = self.only_cross_attention, self.attention_kind == "transformer"
        allowed = len(only) == len(self.attention) and any(only) and transformers and all(
            has for has, crosses in zip(self.attention, only, strict=False) if crosses
        )  # fmt: skip
        require(not only or allowed, "UNet.only_cross_attention", only,
                f"(), or with attention_kind 'transformer' a tuple of {len(self.attention)} "
                "entries, some True, and those only on levels with attention")  # fmt: skip

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
    """Classifier: downsampling half of a U-Net, then attention pooling.

    Tuples have one entry for each level, finest first.
    """

    in_channels: Width = 4
    """Latent channels of the model to be guided."""
    num_classes: Entries = 10
    block_out_channels: tuple[Width, ...] = (64, 128)
    """Channels of each resolution level."""
    layers_per_block: Depth = 1
    """Residual blocks at each level."""
    attention: tuple[bool, ...] = (False, True)
    """Which levels have attention."""
    num_heads: tuple[Width, ...] = (4, 4)
    """Attention heads at each level; the last number also applies to the attention pooling."""
    time_scale_shift: bool = True
    """Use the time embedding to scale and shift features (FiLM) instead of adding it."""
    resblock_updown: bool = True
    """Down- and upsample in residual blocks instead of with a plain convolution."""
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
