"""One whole latent diffusion model: its process, its parts, and how they fit each other."""

from dataclasses import dataclass, field
from typing import Literal

from ldm_jax.config.checks import require, require_divisible, require_positive
from ldm_jax.config.conditions import (
    ClassCondition,
    Condition,
    TextCondition,
    TextTransformer,
    Unconditional,
)
from ldm_jax.config.models import Autoencoder, UNet


@dataclass(frozen=True)
class Diffusion:
    """The forward process and what the network predicts."""

    num_timesteps: int = 1000
    schedule: Literal["linear", "scaled_linear", "cosine"] = "scaled_linear"
    beta_start: float = 0.00085
    beta_end: float = 0.012
    prediction: Literal["eps", "x0", "v"] = "eps"
    sigma_data: float = 1.0
    learned_variance: bool = False
    spacing: Literal["trailing", "leading", "linspace"] = "trailing"
    """Which timesteps a sampler visits unless it is told otherwise."""
    final_alpha_bar: Literal["one", "first"] = "one"
    """Where sampling ends unless it is told otherwise: at no noise, or at that of timestep 0."""

    def __post_init__(self) -> None:
        require_positive(self, "num_timesteps")
        require(0 < self.beta_end < 1, "diffusion.beta_end", self.beta_end, "between 0 and 1")
        require(0 < self.beta_start <= self.beta_end, "diffusion.beta_start", self.beta_start,
                f"in (0, beta_end = {self.beta_end}]")  # fmt: skip


@dataclass(frozen=True)
class Model:
    """Both stages of one model, without what trained them."""

    autoencoder: Autoencoder
    unet: UNet
    condition: Condition = field(default_factory=Unconditional)
    diffusion: Diffusion = field(default_factory=Diffusion)
    image_size: int = 512
    """Height and width of the images that it was trained on."""

    def __post_init__(self) -> None:
        check_condition(self.unet, self.condition)
        channels, factor = self.autoencoder.latent_channels, self.autoencoder.factor
        require(self.unet.in_channels == channels, "unet.in_channels", self.unet.in_channels,
                f"{channels}, the latent channels of the first stage")  # fmt: skip
        require_divisible("image_size", self.image_size, factor * self.unet.factor,
                          "the first stage's factor times the U-Net's")  # fmt: skip
        map_size = getattr(getattr(self.condition, "encoder", None), "map_size", None)
        side = self.image_size // factor
        require(map_size in (None, side), "condition.encoder.map_size", map_size,
                f"{side}, the side of the latents, or None")  # fmt: skip


def check_condition(unet: UNet, condition: Condition) -> None:
    """Raises ConfigError unless `unet` takes exactly what `condition` gives."""
    wants = {"class_count": None, "context_dim": None, "pooled_dim": None, "concat_channels": 0}
    match condition:
        case ClassCondition(context_dim=None):
            wants["class_count"] = condition.num_classes + 1
        case ClassCondition():
            wants["context_dim"] = condition.context_dim
        case TextCondition(encoder=encoder):
            wants["context_dim"] = encoder.width
            if isinstance(encoder, TextTransformer):
                wants["pooled_dim"] = encoder.pooled_dim
                wants["concat_channels"] = encoder.map_channels if encoder.map_size else 0
            if condition.inpaint:
                wants["concat_channels"] = 1 + unet.in_channels
    for name, want in wants.items():
        require(getattr(unet, name) == want, f"unet.{name}", getattr(unet, name),
                f"{want} to match condition {type(condition).__name__}")  # fmt: skip
