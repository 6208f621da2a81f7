"""What is trained beside a model that stays as it is."""

import re
from dataclasses import field
from typing import Annotated, Literal

from ldm_jax.config.checks import ConfigError, Decay, Positive, Width, Within, require, settings

MODULES = {
    "all": r".*",
    "attention": r"unet/.*/attn[12]/(to_q|to_k|to_v|to_out/0)",
    "transformers": r"unet/.*/attentions/.*",
    "convolutions": r"unet/.*/(resnets|downsamplers|upsamplers)/.*",
    "unet": r"unet/.*",
    "text_attention": r"text_encoder/.*/(q_proj|k_proj|v_proj|out_proj)",
    "text_encoder": r"text_encoder/.*",
}
"""Patterns of modules, each by its component and its path there."""


@settings
class LoRA:
    """A change of low rank (Hu 2021)."""

    rank: Width = 16
    alpha: Positive | None = None
    """The change is multiplied by alpha / rank; None: alpha is the rank."""
    rank_stabilized: bool = False
    """Multiply by alpha / sqrt(rank) instead (rsLoRA, Kalajdzievski 2023)."""
    rank_dropout: Decay = 0.0
    """Share of the ranks that are left out, of each example anew."""
    tucker: bool = False
    """Convolutions of 3 x 3 in Tucker's form, with fewer numbers."""


@settings
class LoHa:
    """The product of two changes of low rank, element by element."""

    rank: Width = 8
    alpha: Positive | None = None
    """The change is multiplied by alpha / rank; None: alpha is the rank."""
    tucker: bool = False
    """Convolutions of 3 x 3 in Tucker's form, with fewer numbers."""


@settings
class LoKr:
    """A Kronecker product, whose second factor is of low rank where that is smaller."""

    rank: Width = 8
    alpha: Positive | None = None
    """A product with a factor of low rank is multiplied by alpha / rank; None: alpha is the
    rank."""
    factor: Annotated[int, Within(-1, 65536)] = -1
    """At most the size of the smaller factor; -1: as square as can be."""
    decompose_both: bool = False
    """Both factors of low rank."""
    tucker: bool = False
    """Convolutions of 3 x 3 in Tucker's form, with fewer numbers."""

    def __post_init__(self) -> None:
        require(self.factor != 0, "adapter.kind.factor", self.factor, "-1, or 1 and more")


@settings
class IA3:
    """A factor for each output, or each input, of a module (Liu 2022)."""

    on_input: str = r".*/(net/2|fc2)"
    """Pattern of the modules whose inputs are scaled; of all others it is the outputs."""

    def __post_init__(self) -> None:
        _check_pattern("adapter.kind.on_input", self.on_input)


@settings
class FullDifference:
    """The whole difference of each weight, kept apart from it."""

    biases: bool = True
    """Of biases too."""
    norms: bool = True
    """Of norms among the modules too."""


AdapterKind = LoRA | LoHa | LoKr | IA3 | FullDifference


@settings
class ModuleAdapter:
    """Small changes of single modules: LoRA and its relatives."""

    kind: AdapterKind = field(default_factory=LoRA)
    modules: tuple[str, ...] = ("attention",)
    """Which modules, one or more of: `attention`, the U-Net's; `transformers`, all in its
    transformer blocks; `convolutions`, in its other blocks; `unet`; `text_attention`;
    `text_encoder`; `all`; or patterns (regular expressions) of whole names, such as
    unet/mid_block/.*"""
    ranks: tuple[str, ...] = ()
    """Other ranks for some modules, as PATTERN=RANK or PATTERN=RANK:ALPHA; the first pattern that
    matches decides. Rank 0 leaves a module out."""
    magnitude: bool = False
    """Learn the magnitude of each output's weights apart from their direction (DoRA)."""
    dropout: Decay = 0.0
    """Of the inputs of the changes."""
    module_dropout: Decay = 0.0
    """Share of the changes that are left out, of each example anew."""

    def __post_init__(self) -> None:
        known = f"one or more of {', '.join(MODULES)}, or patterns of whole names of modules"
        require(len(self.modules) > 0, "adapter.modules", self.modules, known)
        for entry in self.modules:
            require(
                entry in MODULES or "/" in entry or "*" in entry, "adapter.modules", entry, known
            )
            _check_pattern("adapter.modules", entry)
        ranked = isinstance(self.kind, LoRA | LoHa | LoKr)
        name = type(self.kind).__name__
        require(
            ranked or not self.ranks,
            "adapter.ranks",
            self.ranks,
            f"empty for {name}, without ranks",
        )
        require(
            ranked or not self.magnitude, "adapter.magnitude", self.magnitude, f"False for {name}"
        )
        for entry in self.ranks:
            rank_rule(entry)

    def rank_of(self, module: str) -> tuple[int, float | None] | None:
        """Rank and alpha of a module by its name; None where it has no change."""
        for pattern, rank, alpha in map(rank_rule, self.ranks):
            if re.fullmatch(pattern, module):
                return (rank, alpha) if rank else None
        if isinstance(self.kind, IA3 | FullDifference):
            return 0, None
        return self.kind.rank, self.kind.alpha

    def takes(self, module: str) -> bool:
        """Whether a module, by its name, is among those that are changed."""
        return any(re.fullmatch(MODULES.get(entry, entry), module) for entry in self.modules)


def rank_rule(entry: str) -> tuple[str, int, float | None]:
    """Pattern, rank and alpha of PATTERN=RANK:ALPHA.

    Raises:
        ConfigError: it is no such thing.
    """
    pattern, _, numbers = entry.rpartition("=")
    rank, _, alpha = numbers.partition(":")
    _check_pattern("adapter.ranks", pattern)
    try:
        found = int(rank), float(alpha) if alpha else None
    except ValueError:
        found = -1, None
    if not pattern or not 0 <= found[0] <= 65536 or not (found[1] is None or 0 < found[1] < 1e30):
        raise ConfigError(
            f"adapter.ranks has {entry!r}; it must be PATTERN=RANK or PATTERN=RANK:ALPHA, such as "
            "'unet/.*/resnets/.*=8:4'"
        )
    return pattern, *found


def _check_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{name} has {pattern!r}, which is no pattern: {error}") from None


Activation = Literal[
    "linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid", "hardswish", "silu", "gelu",
    "selu", "celu", "mish", "relu6", "softplus", "softsign", "hardtanh", "hardsigmoid",
    "tanhshrink", "logsigmoid",
]  # fmt: skip
"""As the web UI calls them; `swish` is what others call hardswish, `linear` is none."""


@settings
class Hypernetwork:
    """Small networks before the keys and the values of all attention, one pair for each width of
    what these are made of (the web UI's)."""

    widths: tuple[Width, ...] = ()
    """Widths that have networks; (): all that the model has."""
    layer_structure: tuple[Positive, ...] = (1.0, 2.0, 1.0)
    """Widths of the layers, as multiples of that of the input; the first and the last are 1."""
    activation: Activation = "linear"
    layer_norm: bool = False
    """Normalise after each layer."""
    activate_output: bool = True
    """Whether the last layer has the activation, too."""
    dropout: tuple[Decay, ...] = ()
    """Share that is left out after each layer in training, beginning with the input, which has 0;
    (): none."""
    initialization: Literal[
        "normal", "xavier_uniform", "xavier_normal", "kaiming_uniform", "kaiming_normal"
    ] = "normal"
    """How weights begin; `normal` has a deviation of 0.01."""

    def __post_init__(self) -> None:
        layers = self.layer_structure
        require(len(layers) > 1 and layers[0] == layers[-1] == 1, "adapter.layer_structure", layers,
                "two or more numbers, the first and the last of them 1")  # fmt: skip
        fits = not self.dropout or (
            len(self.dropout) == len(layers) and self.dropout[0] == 0 == self.dropout[-1]
        )
        require(fits, "adapter.dropout", self.dropout,
                f"() or {len(layers)} shares, as many as layer_structure has numbers, the first "
                "and the last of them 0")  # fmt: skip


@settings
class TextualInversion:
    """New words of a text encoder, whose vectors alone are trained (Gal 2022)."""

    words: tuple[str, ...] = ("sks",)
    """The words, as prompts will have them. Of a word that the model knows, the meaning is
    replaced."""
    vectors: Annotated[int, Within(1, 70)] = 1
    """Vectors of each word: more hold more, and leave less room in prompts."""
    init_text: str = "thing"
    """Words whose tokens the vectors begin as, one after the other, over and over."""
    captions: Literal["object", "style", "own"] = "object"
    """What pictures are trained with: templates such as `a photo of my {}`, or `a painting in the
    style of {}`; or `own`, their own captions, which name the words."""

    def __post_init__(self) -> None:
        fits = all(word and "/" not in word and word == word.strip() for word in self.words)
        require(len(self.words) == len({*self.words}) > 0 and fits, "adapter.words", self.words,
                "one or more different words, without '/' and blanks around")  # fmt: skip


@settings
class ControlNet:
    """A copy of the U-Net's way down, which reads a hint beside the model (Zhang 2023)."""

    hint: Literal["canny", "edit_images"] = "canny"
    """What it is shown: `canny`, the edges of each image, found as it is read; `edit_images`, the
    pictures that data.source.edit_images names, such as depth maps or sketches."""
    canny_low: Annotated[float, Within(0.0, 1e6)] = 100.0
    """Threshold of gradients beside an edge, of pixels of 0 to 255."""
    canny_high: Annotated[float, Within(0.0, 1e6)] = 200.0
    """Threshold of gradients with which an edge begins."""

    def __post_init__(self) -> None:
        require(self.canny_low <= self.canny_high, "canny_low", self.canny_low,
                f"at most canny_high, {self.canny_high:g}")  # fmt: skip


Adapter = ModuleAdapter | TextualInversion | Hypernetwork | ControlNet
"""What may be trained beside a model."""
