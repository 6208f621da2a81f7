"""Bottlenecks between an autoencoder's encoder and decoder."""

from typing import Annotated, Literal

from ldm_jax.config.checks import (
    Count,
    Decay,
    Entries,
    Positive,
    Weight,
    Width,
    Within,
    require,
    settings,
)


@settings
class KL:
    """Gaussian latents, regularised towards N(0, 1), as in Stable Diffusion (Kingma & Welling 2014,
    Rombach 2022)."""


@settings
class VQ:
    """Vector quantisation: the nearest vector of a learned codebook (van den Oord 2017, Esser
    2021)."""

    size: Entries = 8192
    """Number of vectors."""
    beta: Weight = 0.25
    """Weight of the commitment term (with `legacy`, of the codebook term)."""
    weighting: Literal["paper", "legacy"] = "paper"
    """`paper`: codebook + beta * commitment. `legacy`: commitment + beta * codebook, as the
    published models of Esser 2021 and Rombach 2022 were trained."""
    ema_decay: Decay | None = None
    """EMA codebook: update vectors as moving averages of their latents with this decay, such as
    0.99. None: train them by gradients."""
    cosine: bool = False
    """Normalise latents and vectors to length 1 (Yu 2022, ViT-VQGAN)."""
    code_dim: Width | None = None
    """Width of the vectors, with projections from and to the latents; None: that of the latents."""
    revive_after: Count | None = None
    """Replace a vector that was unused for this many steps by a latent of the batch; None:
    never."""

    def __post_init__(self) -> None:
        if self.ema_decay is not None:
            require(self.weighting == "paper", "VQ.weighting", self.weighting,
                    "'paper' with ema_decay, which leaves no codebook term to weigh")  # fmt: skip


@settings
class Gumbel:
    """Gumbel softmax: a vector of a learned codebook, drawn from a categorical distribution (Jang
    2017, Ramesh 2021)."""

    size: Entries = 8192
    """Number of vectors."""
    temperature: Positive = 1.0
    """Temperature of the Gumbel softmax in training."""
    straight_through: bool = True
    """In training, the decoder gets a single vector and gradients are those of the soft mixture.
    Off: the decoder gets the mixture."""
    kl_weight: Weight = 5e-4
    """Weight of the KL divergence from the uniform distribution."""


@settings
class FSQ:
    """Finite scalar quantisation: each latent channel is rounded to a few values; no codebook and
    no loss (Mentzer 2024)."""

    levels: tuple[Annotated[int, Within(2, 65536)], ...] = (8, 5, 5, 5)
    """Number of values of each latent channel."""

    def __post_init__(self) -> None:
        require(0 < len(self.levels) < 31, "FSQ.levels", self.levels, "of one to thirty entries")
        require(self.size < 2**31, "FSQ.levels", self.levels, "of a product below 2**31")

    @property
    def size(self) -> int:
        """Number of codes: the product of the levels."""
        size = 1
        for level in self.levels:
            size *= level
        return size


@settings
class LFQ:
    """Lookup-free quantisation: the sign of each latent channel, one bit each (Yu 2024,
    MAGVIT-v2)."""

    beta: Weight = 0.25
    """Weight of the commitment term."""
    entropy_weight: Weight = 0.1
    """Weight of the entropy loss: entropy of each latent's code minus that of the batch's codes."""
    temperature: Positive = 1.0
    """Temperature of the distribution over codes in the entropy loss; lower is closer to the
    sign."""


Bottleneck = KL | VQ | Gumbel | FSQ | LFQ
