"""The second stage of VQGAN (Esser 2021): a transformer over the codes of a trained first stage."""

from dataclasses import field, replace
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
from ldm_jax.config.conditioning import Conditioner
from ldm_jax.config.networks import Autoencoder
from ldm_jax.config.tasks import ClassMaps


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

    num_classes: Entries = 10


@settings
class ClassMapPrefix:
    """Semantic synthesis: the first tokens are the codes of a class map, of a first stage that was
    trained on such maps (`train.py --condition_stage`)."""

    maps: ClassMaps = field(default_factory=ClassMaps)
    """The classes, and how files say them."""


@settings
class DepthPrefix:
    """Depth to image: the first tokens are the codes of a depth map, of a first stage of depth
    (`train.py --condition_stage`)."""

    name: ClassVar[str] = "depth"
    inputs: ClassVar[tuple[str, ...]] = ("depth",)
    dropout: ClassVar[float] = 0.0


@settings
class CoordinatePrefix:
    """The first tokens say where in the whole picture each code is, so that pictures larger than
    the training images, which are crops, have a top and a bottom."""

    name: ClassVar[str] = "coordinates"
    inputs: ClassVar[tuple[str, ...]] = ("coordinates",)
    dropout: ClassVar[float] = 0.0

    size: Entries = 1024
    """Tokens from the picture's first pixel to its last, row by row."""


Reader = Conditioner | DepthPrefix | CoordinatePrefix
"""What says of a model which inputs it reads of an example."""
Prefix = ClassPrefix | ClassMapPrefix | DepthPrefix | CoordinatePrefix
"""What comes before the codes of an image."""
START = 0
"""The first token of an unconditional sequence."""


def is_spatial(condition: Prefix | None) -> bool:
    """Whether the condition has a token for each code of the image, in the same raster."""
    return condition is not None and not isinstance(condition, ClassPrefix)


def prefix_length(condition: Prefix | None, codes: int) -> int:
    """Tokens before the `codes` of an image: those of the condition, or the one that starts a
    sequence."""
    return codes if is_spatial(condition) else 1


def stage_channels(condition: Prefix | None) -> int | None:
    """Channels of what a first stage of its own encodes of the condition; None: there is none."""
    match condition:
        case ClassMapPrefix(maps=maps):
            return maps.num_classes
        case DepthPrefix():
            return 1
    return None


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
    condition: Prefix | None = None
    image_size: ImageSize = 256
    """Size of the training images in pixels."""
    condition_stage: Autoencoder | None = None
    """First stage of the condition, where that is made of codes."""

    def __post_init__(self) -> None:
        codes, transformer = self.autoencoder.codes, self.transformer
        require(codes is not None, "autoencoder.bottleneck", self.autoencoder.bottleneck,
                "one with codes: VQ, Gumbel, FSQ or LFQ")  # fmt: skip
        require_divisible("image_size", self.sides, self.autoencoder.factor,
                          "the first stage's factor")  # fmt: skip
        self._check_condition_stage()
        for name, needed in (("vocab_size", self.tokens), ("block_size", self.positions)):
            value = getattr(transformer, name)
            require(value is not None and value >= needed, f"transformer.{name}", value,
                    f"{needed} or more, which first stage and condition need, or None")  # fmt: skip
        before = self.prefix_length
        require(transformer.n_unmasked <= before, "transformer.n_unmasked", transformer.n_unmasked,
                f"at most {before}, the tokens before the codes")  # fmt: skip

    def _check_condition_stage(self) -> None:
        stage, channels = self.condition_stage, stage_channels(self.condition)
        name = type(self.condition).__name__
        if stage is None or channels is None:
            require((stage is None) == (channels is None), "condition_stage", stage,
                    "None, as nothing but class maps and depth is encoded by a first stage of its "
                    "own" if channels is None
                    else f"the first stage that encodes what {name} reads")  # fmt: skip
            return
        require(stage.codes is not None, "condition_stage.bottleneck", stage.bottleneck,
                "one with codes: VQ, Gumbel, FSQ or LFQ")  # fmt: skip
        require(stage.image_channels == channels, "condition_stage.image_channels",
                stage.image_channels, f"{channels}, the channels of what {name} reads")  # fmt: skip
        require(stage.factor == self.autoencoder.factor, "condition_stage.factor", stage.factor,
                f"{self.autoencoder.factor}, that of the images' first stage")  # fmt: skip

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
        return needed_tokens(self.autoencoder, self.condition, self.condition_stage)

    @property
    def prefix_length(self) -> int:
        """Tokens before the codes of a training image."""
        height, width = self.grid
        return prefix_length(self.condition, height * width)

    @property
    def positions(self) -> int:
        """Tokens that the transformer is given of a training image."""
        height, width = self.grid
        return self.prefix_length + height * width - 1


def needed_tokens(
    autoencoder: Autoencoder, condition: Prefix | None, condition_stage: Autoencoder | None
) -> int:
    """Different tokens of the codes and the condition, which share one table."""
    match condition:
        case ClassPrefix(num_classes=count) | CoordinatePrefix(size=count):
            before = count
        case _:
            before = 0 if condition_stage is None else condition_stage.codes or 0
    return max(autoencoder.codes or 0, before)


def code_model(
    autoencoder: Autoencoder,
    transformer: CodeTransformer,
    condition: Prefix | None,
    image_size: int | tuple[int, int],
    condition_stage: Autoencoder | None = None,
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
    tokens = needed_tokens(autoencoder, condition, condition_stage)
    fitted = replace(
        transformer,
        vocab_size=transformer.vocab_size or tokens,
        block_size=transformer.block_size or prefix_length(condition, count) + count - 1,
    )
    return CodeModel(autoencoder, fitted, condition, image_size, condition_stage)
