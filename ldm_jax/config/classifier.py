"""A classifier of noisy latents, and the run that trains one."""

from dataclasses import field

from ldm_jax.config.checks import Decay, Depth, Entries, Width, require, require_divisible, settings
from ldm_jax.config.conditioners import ClassConditioner
from ldm_jax.config.data import Data
from ldm_jax.config.model import Diffusion
from ldm_jax.config.models import Autoencoder, UNet
from ldm_jax.config.training import Loop, Mesh, Optim


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


@settings
class ClassifierRun:
    """A classifier trained on the noisy latents of a trained autoencoder.

    `diffusion` must be the process of the models that it is to guide.
    """

    data: Data
    classifier: Classifier
    diffusion: Diffusion = field(default_factory=Diffusion)
    optim: Optim = field(default_factory=Optim)
    loop: Loop = field(default_factory=Loop)
    mesh: Mesh = field(default_factory=Mesh)

    def __post_init__(self) -> None:
        require_divisible("data.batch_size", self.data.batch_size, self.optim.accumulation,
                          "optim.accumulation")  # fmt: skip

    @property
    def conditioners(self) -> tuple[ClassConditioner, ...]:
        """What the training examples must have: a class each."""
        return (ClassConditioner(self.classifier.num_classes, dropout=0.0),)

    def check_first_stage(self, autoencoder: Autoencoder) -> None:
        """Raises ConfigError unless the latents of `autoencoder` fit."""
        channels = autoencoder.latent_channels
        require(self.classifier.in_channels == channels, "classifier.in_channels",
                self.classifier.in_channels, f"{channels}, the first stage's channels")  # fmt: skip
        require_divisible("data.image_size", self.data.image_size,
                          autoencoder.factor * self.classifier.encoder.factor,
                          "the first stage's factor times the classifier's")  # fmt: skip
