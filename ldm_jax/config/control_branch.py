"""What a ControlNet is made of (Zhang 2023)."""

from dataclasses import replace

from ldm_jax.config.checks import Width, require, settings
from ldm_jax.config.networks import FirstStage, UNet


@settings
class ControlBranch:
    """A copy of a U-Net's way down and middle, which reads a hint, a picture such as edges, and
    adds to the skips and the middle of the U-Net."""

    unet: UNet = UNet(in_channels=4, out_channels=4, context_dim=768)
    """The U-Net whose way down and middle it has."""
    hint_channels: Width = 3
    """Channels of the hint: red, green and blue in [0, 1]."""
    hint_widths: tuple[Width, ...] = (16, 32, 96, 256)
    """Channels of the layers that bring a hint to the size of latents, each half the one before."""
    global_pool: bool = False
    """Add the mean over the picture, not each place's own (the shuffle model), and nothing to
    what is unconditional."""

    def __post_init__(self) -> None:
        require(1 <= len(self.hint_widths) <= 16, "ControlBranch.hint_widths", self.hint_widths,
                "a tuple of 1 to 16 entries")  # fmt: skip
        for name in ("in_channels", "out_channels"):
            require(getattr(self.unet, name) is not None, f"ControlBranch.unet.{name}", None,
                    "the number of channels")  # fmt: skip

    @property
    def hint_factor(self) -> int:
        """Pixels of a hint along one side of what the first convolution gives as one."""
        return 2 ** (len(self.hint_widths) - 1)

    @property
    def residuals(self) -> int:
        """How many arrays it adds: one to each skip, and one to the middle."""
        levels = len(self.unet.block_out_channels)
        return 1 + levels * self.unet.layers_per_block + (levels - 1) + 1


def control_of(unet: UNet, first_stage: FirstStage) -> ControlBranch:
    """A new one for a model of this U-Net, its hint's layers as those of Stable Diffusion's.

    Raises:
        ConfigError: a factor between pixels and latents that is no power of two, or above 2^15.
    """
    factor = first_stage.factor * unet.patch_size
    usual = ControlBranch().hint_widths
    count = factor.bit_length()
    require(factor == 2 ** (count - 1) and count <= 16, "factor of the first stage", factor,
            "a power of two, of at most 2^15")  # fmt: skip
    widths = (*usual, *usual[-1:] * count)[:count]
    return ControlBranch(replace(unet, dropout=0.0), hint_widths=widths)
