"""What a U-Net is conditioned on, and what the text encoders are made of."""

from dataclasses import field
from typing import Annotated, Literal

from ldm_jax.config.checks import (
    CountOrNone,
    Entries,
    Share,
    Side,
    Width,
    Within,
    require,
    settings,
)


@settings
class TextTransformer:
    """A text encoder that is trained together with the U-Net."""

    vocab_size: Entries = 256
    max_length: Width = 32
    width: Width = 128
    layers: Annotated[int, Within(0, 256)] = 2
    num_heads: Width = 4
    pooled_dim: Width | None = 256
    """Width of the pooled vector read off all positions; None: no pooled vector."""
    map_size: Side | None = None
    """Height and width of a map drawn from all positions, which is concatenated to latents of
    that size; None: no map."""
    map_channels: Width = 8
    map_width: Width = 1024
    """Hidden units of the map."""

    def __post_init__(self) -> None:
        require(self.width % self.num_heads == 0, "TextTransformer.num_heads", self.num_heads,
                f"a divisor of width {self.width}")  # fmt: skip


@settings
class CLIPText:
    """CLIP's text encoder; the defaults are ViT-L/14, as in Stable Diffusion 1."""

    vocab_size: Entries = 49408
    max_length: Width = 77
    width: Width = 768
    layers: Annotated[int, Within(1, 256)] = 12
    num_heads: Width = 12
    intermediate: Entries = 3072
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    skip_last: CountOrNone = 0
    """How many of the last layers are skipped; 1 is the penultimate output of SD 2."""

    def __post_init__(self) -> None:
        require(self.width % self.num_heads == 0, "CLIPText.num_heads", self.num_heads,
                f"a divisor of width {self.width}")  # fmt: skip
        require(0 <= self.skip_last < self.layers, "CLIPText.skip_last", self.skip_last,
                f"between 0 and {self.layers - 1}")  # fmt: skip


@settings
class BERTText:
    """The text encoder of the 1.45B latent diffusion model; `head_dim` is a width of its own."""

    vocab_size: Entries = 30522
    max_length: Width = 77
    width: Width = 1280
    layers: Annotated[int, Within(1, 256)] = 32
    num_heads: Width = 8
    head_dim: Width = 64


@settings
class Unconditional:
    """No condition."""


@settings
class ClassCondition:
    """A class label, embedded into the time embedding or as a context of one token."""

    num_classes: Entries = 10
    dropout: Share = 0.1
    """Share of training examples whose class is replaced by the unconditional one."""
    context_dim: Width | None = None
    """Width of the class token; None: the class joins the time embedding."""


@settings
class TextCondition:
    """A caption, tokenised and encoded."""

    encoder: TextTransformer | CLIPText | BERTText = field(default_factory=TextTransformer)
    tokenizer: Literal["word", "bpe", "clip", "bert"] = "word"
    """What captions are cut into: `word` and `bpe` are made from the training captions, `clip`
    and `bert` read from files."""
    dropout: Share = 0.1
    """Share of training examples whose caption is replaced by the empty one."""
    inpaint: bool = False
    """A mask and the masked image's latents are concatenated to the noisy ones."""


Condition = Unconditional | ClassCondition | TextCondition
