"""What an autoencoder is trained for: reconstruction, its bottleneck's price, and a
discriminator."""

from typing import Annotated, Literal

from ldm_jax.config.bottlenecks import KL
from ldm_jax.config.checks import (
    CountOrNone,
    Decay,
    LearningRate,
    LogRatio,
    Positive,
    Weight,
    Width,
    Within,
    require,
    settings,
)
from ldm_jax.config.networks import Autoencoder


@settings
class Perceptual:
    """LPIPS (Zhang 2018): distances of VGG16's features. Its two files are read when a run
    begins; the work directory keeps a copy, so that going on needs them no more."""

    weight: Positive = 1.0
    vgg: str = ""
    """VGG16's weights as torchvision publishes them (vgg16-397923af.pth)."""
    heads: str = ""
    """The linear heads, lpips/weights/v0.1/vgg.pth of the Python package lpips; nothing where
    `vgg` has them too."""


@settings
class Adversarial:
    """A discriminator of patches (PatchGAN, Isola 2017) that is trained against the autoencoder."""

    weight: Positive = 0.5
    start: CountOrNone = 50_001
    """Steps done before the discriminator begins; until then it neither costs nor changes
    anything."""
    loss: Literal["hinge", "vanilla"] = "hinge"
    """The discriminator's; `vanilla` is the non-saturating one."""
    factor: Positive = 1.0
    """Multiplies the autoencoder's and the discriminator's adversarial losses."""
    adaptive: bool = True
    """Scales the autoencoder's adversarial loss until, at the decoder's last layer, its gradient
    is as large as that of the reconstruction (Esser 2021, equation 7)."""
    sees: Literal["same", "updated"] = "same"
    """Which reconstructions the discriminator learns from: those that the autoencoder has just
    learnt from, or those of the updated autoencoder. The published code does the latter, which
    costs a second forward pass."""
    channels: Width = 64
    layers: Annotated[int, Within(1, 12)] = 3
    """Convolutions of stride 2; 3 makes patches of 70 pixels."""
    norm: Literal["batch", "none"] = "batch"
    """`none` trains the same however a batch is divided into micro-batches."""
    r1_gamma: Weight = 0.0
    """Weight of the discriminator's squared gradient at real images (Mescheder 2018, equation
    9)."""
    lecam_weight: Weight = 0.0
    """Weight of the distance of its outputs from their running averages (Tseng 2021)."""
    lecam_decay: Decay = 0.999
    learning_rate: LearningRate | None = None
    """The discriminator's; None: the autoencoder's. All else is as in `optim`; its schedule and
    warm-up begin when it does."""

    def __post_init__(self) -> None:
        if self.r1_gamma:
            require(self.norm == "none", "loss.adversarial.norm", self.norm,
                    "'none' with r1_gamma: batch norm mixes images, whose gradients R1 takes "
                    "one by one")  # fmt: skip


@settings
class AutoencoderLoss:
    """The terms of stage one with their weights."""

    l1_weight: Weight = 1.0
    l2_weight: Weight = 0.0
    reduction: Literal["per_pixel", "published_kl", "published_vq"] = "per_pixel"
    """How terms become one number. `per_pixel`: means over pixel values, and over latent values
    for the KL term, so that weights do not depend on sizes. `published_kl`: sums over an image,
    as Stable Diffusion's autoencoder was trained. `published_vq`: means, and the codebook's term
    as it is."""
    kl_weight: Weight = 1e-6
    codebook_weight: Weight = 1.0
    """Of the bottleneck's own loss where it has codes."""
    logvar: LogRatio = 0.0
    """Log-variance of the reconstruction: nll = error / exp(logvar) + logvar. The published code
    calls it a parameter, but gives it to no optimiser: it stays what it is."""
    perceptual: Perceptual | None = None
    adversarial: Adversarial | None = None

    def __post_init__(self) -> None:
        require(self.l1_weight + self.l2_weight > 0, "loss.l1_weight", self.l1_weight,
                "positive unless l2_weight is")  # fmt: skip
        require(self.logvar == 0 or self.reduction != "published_vq", "loss.logvar", self.logvar,
                "0 with reduction 'published_vq', which has none")  # fmt: skip


def check_loss(loss: AutoencoderLoss, autoencoder: Autoencoder, sides: tuple[int, int]) -> None:
    """Raises ConfigError unless the terms can be computed for such an autoencoder's images."""
    kind = "published_vq" if isinstance(autoencoder.bottleneck, KL) else "published_kl"
    name = type(autoencoder.bottleneck).__name__
    require(loss.reduction != kind, "loss.reduction", loss.reduction,
            f"another with bottleneck {name}: that one is not defined for it")  # fmt: skip
    if loss.perceptual is not None:
        require(min(sides) >= 16, "data.image_size", min(sides),
                "16 or more for loss.perceptual, which pools by 16")  # fmt: skip
        require(autoencoder.image_channels == 3, "autoencoder.image_channels",
                autoencoder.image_channels, "3 for loss.perceptual")  # fmt: skip
    if loss.adversarial is not None:
        layers = loss.adversarial.layers
        least = 3 * 2**layers
        require(min(sides) >= least, "data.image_size", min(sides),
                f"{least} or more for loss.adversarial.layers {layers}")  # fmt: skip
