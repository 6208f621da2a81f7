"""What an autoencoder may have between its encoder and its decoder."""

from dataclasses import dataclass
from typing import Literal

from ldm_jax.config.checks import require, require_positive


@dataclass(frozen=True)
class KL:
    """A Gaussian over latents, drawn towards N(0, 1) (Kingma & Welling 2014, Rombach 2022)."""


@dataclass(frozen=True)
class VQ:
    """The nearest of learned vectors (van den Oord 2017, Esser 2021)."""

    size: int = 8192
    """Number of vectors."""
    beta: float = 0.25
    """Weight of the commitment term; with `legacy`, of the codebook term."""
    weighting: Literal["paper", "legacy"] = "paper"
    """`paper`: codebook + beta * commitment. `legacy`: commitment + beta * codebook, as the
    published models of Esser 2021 and Rombach 2022 were trained."""
    ema_decay: float | None = None
    """The vectors are moving averages of their latents, with this decay; None: they are trained
    by gradients."""
    cosine: bool = False
    """Latents and vectors are compared, and decoded, at length 1 (Yu 2022, ViT-VQGAN)."""
    code_dim: int | None = None
    """Width of the vectors, with projections from and to latents; None: that of the latents."""
    revive_after: int | None = None
    """Steps without use after which a vector is replaced by a latent of the batch; None: never."""

    def __post_init__(self) -> None:
        require_positive(self, "size")
        require(self.beta >= 0, "VQ.beta", self.beta, "0 or greater")
        for name in ("code_dim", "revive_after"):
            if getattr(self, name) is not None:
                require_positive(self, name)
        if self.ema_decay is not None:
            require(0 <= self.ema_decay < 1, "VQ.ema_decay", self.ema_decay, "None or in [0, 1)")
            require(self.weighting == "paper", "VQ.weighting", self.weighting,
                    "'paper' with ema_decay, which leaves no codebook term to weigh")  # fmt: skip


@dataclass(frozen=True)
class Gumbel:
    """A learned vector drawn from a categorical distribution (Jang 2017, Ramesh 2021)."""

    size: int = 8192
    """Number of vectors."""
    temperature: float = 1.0
    """Of the relaxed draw in training, unless the training step gives another."""
    straight_through: bool = True
    """In training the decoder gets one vector, and gradients that of the mixture; off: it gets
    the mixture."""
    kl_weight: float = 5e-4
    """Weight of the divergence from the uniform distribution."""

    def __post_init__(self) -> None:
        require_positive(self, "size", "temperature")
        require(self.kl_weight >= 0, "Gumbel.kl_weight", self.kl_weight, "0 or greater")


@dataclass(frozen=True)
class FSQ:
    """Each latent channel rounded to a few values; no codebook, no loss (Mentzer 2024)."""

    levels: tuple[int, ...] = (8, 5, 5, 5)
    """Number of values of each latent channel."""

    def __post_init__(self) -> None:
        require(len(self.levels) > 0 and all(level >= 2 for level in self.levels), "FSQ.levels",
                self.levels, "at least one entry, each 2 or greater")  # fmt: skip
        require(self.size < 2**31, "FSQ.levels", self.levels, "of a product below 2**31")

    @property
    def size(self) -> int:
        """Number of codes: the product of the levels."""
        size = 1
        for level in self.levels:
            size *= level
        return size


@dataclass(frozen=True)
class LFQ:
    """The sign of each latent channel; the codes have one bit for each (Yu 2024, MAGVIT-v2)."""

    beta: float = 0.25
    """Weight of the commitment term."""
    entropy_weight: float = 0.1
    """Weight of the entropy of each latent's code less that of the batch's codes."""
    temperature: float = 1.0
    """Of the distribution over codes whose entropies are taken; lower is nearer to the sign."""

    def __post_init__(self) -> None:
        require_positive(self, "temperature")
        for name in ("beta", "entropy_weight"):
            require(getattr(self, name) >= 0, f"LFQ.{name}", getattr(self, name), "0 or greater")


Bottleneck = KL | VQ | Gumbel | FSQ | LFQ
