"""What a U-Net is conditioned on, and what the text encoders are made of."""

from dataclasses import dataclass, field
from typing import Literal

from ldm_jax.config.checks import require, require_fraction, require_positive


@dataclass(frozen=True)
class TextTransformer:
    """A text encoder that is trained together with the U-Net."""

    vocab_size: int = 256
    max_length: int = 32
    width: int = 128
    layers: int = 2
    num_heads: int = 4
    pooled_dim: int | None = 256
    """Width of the pooled vector read off all positions; None: no pooled vector."""
    map_size: int | None = None
    """Height and width of a map drawn from all positions, which is concatenated to latents of
    that size; None: no map."""
    map_channels: int = 8
    map_width: int = 1024
    """Hidden units of the map."""

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "max_length", "width", "num_heads", "map_channels",
                         "map_width")  # fmt: skip
        if self.map_size is not None:
            require_positive(self, "map_size")
        require(self.width % self.num_heads == 0, "TextTransformer.num_heads", self.num_heads,
                f"a divisor of width {self.width}")  # fmt: skip


@dataclass(frozen=True)
class CLIPText:
    """CLIP's text encoder; the defaults are ViT-L/14, as in Stable Diffusion 1."""

    vocab_size: int = 49408
    max_length: int = 77
    width: int = 768
    layers: int = 12
    num_heads: int = 12
    intermediate: int = 3072
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    skip_last: int = 0
    """How many of the last layers are skipped; 1 is the penultimate output of SD 2."""

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "max_length", "width", "layers", "num_heads")
        require(self.width % self.num_heads == 0, "CLIPText.num_heads", self.num_heads,
                f"a divisor of width {self.width}")  # fmt: skip
        require(0 <= self.skip_last < self.layers, "CLIPText.skip_last", self.skip_last,
                f"between 0 and {self.layers - 1}")  # fmt: skip


@dataclass(frozen=True)
class BERTText:
    """The text encoder of the 1.45B latent diffusion model; `head_dim` is a width of its own."""

    vocab_size: int = 30522
    max_length: int = 77
    width: int = 1280
    layers: int = 32
    num_heads: int = 8
    head_dim: int = 64

    def __post_init__(self) -> None:
        require_positive(self, "vocab_size", "max_length", "width", "layers", "num_heads",
                         "head_dim")  # fmt: skip


@dataclass(frozen=True)
class Unconditional:
    """No condition."""


@dataclass(frozen=True)
class ClassCondition:
    """A class label, embedded into the time embedding or as a context of one token."""

    num_classes: int = 10
    dropout: float = 0.1
    """Share of training examples whose class is replaced by the unconditional one."""
    context_dim: int | None = None
    """Width of the class token; None: the class joins the time embedding."""

    def __post_init__(self) -> None:
        require_positive(self, "num_classes")
        require_fraction(self, "dropout")


@dataclass(frozen=True)
class TextCondition:
    """A caption, tokenised and encoded."""

    encoder: TextTransformer | CLIPText | BERTText = field(default_factory=TextTransformer)
    tokenizer: Literal["word", "bpe", "clip", "bert"] = "word"
    """What captions are cut into: `word` and `bpe` are made from the training captions, `clip`
    and `bert` read from files."""
    dropout: float = 0.1
    """Share of training examples whose caption is replaced by the empty one."""
    inpaint: bool = False
    """A mask and the masked image's latents are concatenated to the noisy ones."""

    def __post_init__(self) -> None:
        require_fraction(self, "dropout")


Condition = Unconditional | ClassCondition | TextCondition
