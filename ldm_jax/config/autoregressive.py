"""The second stage of VQGAN (Esser 2021): a transformer over the codes of a trained first stage."""

from dataclasses import replace
from typing import Annotated, ClassVar

from ldm_jax.config.checks import (
    CountOrNone,
    Decay,
    Entries,
    ImageSize,
    Positive,
    Width,
    Within,
    height_and_width,
    require,
    require_divisible,
    settings,
)
from ldm_jax.config.networks import Autoencoder


@settings
class CodeTransformer:
    """Causal transformer (GPT) over the codes of an image, row by row, after its condition."""

    vocab_size: Entries | None = None
    """Tokens in the one table that codes and classes share; None: as many as are needed."""
    block_size: Width | None = None
    """Positions: tokens of the condition and all codes but the last; None: as many as are
    needed."""
    layers: Annotated[int, Within(1, 256)] = 24
    width: Width = 1024
    num_heads: Width = 16
    n_unmasked: CountOrNone = 0
    """First tokens of the sequence that all see each other, as those of a condition may."""
    embedding_dropout: Decay = 0.0
    """Dropout after the embeddings."""
    residual_dropout: Decay = 0.0
    """Dropout of what attention and MLP add."""
    attention_dropout: Decay = 0.0
    """Dropout of the attention weights."""

    def __post_init__(self) -> None:
        require(self.width % self.num_heads == 0, "CodeTransformer.num_heads", self.num_heads,
                f"a divisor of width {self.width}")  # fmt: skip


@settings
class ClassPrefix:
    """Class conditioning: the class is the first token, and class 7 has the embedding of code 7."""

    length: ClassVar[int] = 1

    num_classes: Entries = 10


START = 0
"""The first token of an unconditional sequence."""


def prefix_length(condition: ClassPrefix | None) -> int:
    """Tokens before the codes: those of the condition, or the one that starts a sequence."""
    return 1 if condition is None else condition.length


@settings
class CodeSampling:
    """How codes are drawn from the transformer's probabilities."""

    temperature: Positive = 1.0
    """Divides the logits; below 1 draws likely codes more often."""
    top_k: Entries | None = None
    """Draw only from so many of the likeliest codes; 1 always takes the likeliest. None: from
    all."""
    top_p: Annotated[float, Within(0.0, 1.0, above=True)] = 1.0
    """Draw only from the likeliest codes that together have this probability (nucleus sampling),
    of those that top_k leaves. 1: from all."""


@settings
class CodeModel:
    """A whole model: a first stage with codes, and a transformer over these."""

    autoencoder: Autoencoder
    transformer: CodeTransformer
    condition: ClassPrefix | None = None
    image_size: ImageSize = 256
    """Size of the training images in pixels."""

    def __post_init__(self) -> None:
        codes, transformer = self.autoencoder.codes, self.transformer
        require(codes is not None, "autoencoder.bottleneck", self.autoencoder.bottleneck,
                "one with codes: VQ, Gumbel, FSQ or LFQ")  # fmt: skip
        require_divisible("image_size", self.sides, self.autoencoder.factor,
                          "the first stage's factor")  # fmt: skip
        for name, needed in (("vocab_size", self.tokens), ("block_size", self.positions)):
            value = getattr(transformer, name)
            require(value is not None and value >= needed, f"transformer.{name}", value,
                    f"{needed} or more, which first stage and condition need, or None")  # fmt: skip
        before = prefix_length(self.condition)
        require(transformer.n_unmasked <= before, "transformer.n_unmasked", transformer.n_unmasked,
                f"at most {before}, the tokens before the codes")  # fmt: skip

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the training images in pixels."""
        return height_and_width("image_size", self.image_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the training images in codes."""
        height, width = self.sides
        return height // self.autoencoder.factor, width // self.autoencoder.factor

    @property
    def tokens(self) -> int:
        """Different tokens that a sequence has."""
        return needed_tokens(self.autoencoder, self.condition)

    @property
    def positions(self) -> int:
        """Tokens that the transformer is given of a training image."""
        height, width = self.grid
        return prefix_length(self.condition) + height * width - 1


def needed_tokens(autoencoder: Autoencoder, condition: ClassPrefix | None) -> int:
    """Different tokens of the codes and the condition."""
    classes = 0 if condition is None else condition.num_classes
    return max(autoencoder.codes or 0, classes)


def code_model(
    autoencoder: Autoencoder,
    transformer: CodeTransformer,
    condition: ClassPrefix | None,
    image_size: int | tuple[int, int],
) -> CodeModel:
    """The model of these parts; what the transformer leaves open is set from the others.

    Raises:
        ConfigError: they do not fit each other.
    """
    require(autoencoder.codes is not None, "autoencoder.bottleneck", autoencoder.bottleneck,
            "one with codes (VQ, Gumbel, FSQ or LFQ) for a transformer over codes")  # fmt: skip
    sides = height_and_width("data.image_size", image_size)
    require_divisible("data.image_size", sides, autoencoder.factor, "the first stage's factor")
    count = (sides[0] // autoencoder.factor) * (sides[1] // autoencoder.factor)
    fitted = replace(
        transformer,
        vocab_size=transformer.vocab_size or needed_tokens(autoencoder, condition),
        block_size=transformer.block_size or prefix_length(condition) + count - 1,
    )
    return CodeModel(autoencoder, fitted, condition, image_size)
