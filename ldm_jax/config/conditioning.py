"""What a U-Net is conditioned on: conditioners, and what their text encoders are made of.

A model has a tuple of conditioners. Each reads an input of an example by name, such as its
`caption`, and fills slots of the U-Net: tokens for cross-attention, a vector or a class for the
time embedding, channels beside the latents.
"""

from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

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
from ldm_jax.config.noise_processes import Discrete
from ldm_jax.config.tasks import Bicubic, CaptionTags, ClassMaps, Degradation, LayoutTokens, Masks


class Slots(NamedTuple):
    """How wide what a U-Net is conditioned on is; what is None, or 0, is absent."""

    context: int | None = None
    """Width of the tokens for cross-attention."""
    pooled: int | None = None
    """Width of the vector that is projected and added to the time embedding."""
    label: int | None = None
    """Number of classes embedded into the time embedding, the unconditional one included."""
    concat: int = 0
    """Channels that are concatenated to the latents."""


@settings
class TextTransformer:
    """Small text encoder, trained together with the U-Net."""

    vocab_size: Entries = 256
    max_length: Width = 32
    width: Width = 128
    layers: Annotated[int, Within(0, 256)] = 2
    num_heads: Width = 4
    pooled_dim: Width | None = 256
    """Width of the pooled vector, computed from all positions; None: no pooled vector."""

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
    """Number of last layers to skip (\"clip skip\" minus 1); Stable Diffusion 2 skips 1."""

    def __post_init__(self) -> None:
        require(self.width % self.num_heads == 0, "CLIPText.num_heads", self.num_heads,
                f"a divisor of width {self.width}")  # fmt: skip
        require(0 <= self.skip_last < self.layers, "CLIPText.skip_last", self.skip_last,
                f"between 0 and {self.layers - 1}")  # fmt: skip


@settings
class BERTText:
    """Text encoder of the 1.45B latent diffusion model (a BERT)."""

    vocab_size: Entries = 30522
    max_length: Width = 77
    width: Width = 1280
    layers: Annotated[int, Within(1, 256)] = 32
    num_heads: Width = 8
    head_dim: Width = 64
    """Width of each attention head, independent of `width`."""


@settings
class SentenceBERT:
    """A BERT in transformers' form, as sentence encoders are; the defaults are BERT base."""

    vocab_size: Entries = 30522
    positions: Width = 512
    """Tokens that it has embeddings of places for."""
    max_length: Width = 128
    """Tokens that captions are filled up and cut to."""
    width: Width = 768
    layers: Annotated[int, Within(1, 256)] = 12
    num_heads: Width = 12
    intermediate: Entries = 3072
    pooling: Literal["mean", "first"] = "mean"
    """The vector of a caption: the mean of the states of its tokens, or that of the first."""

    def __post_init__(self) -> None:
        require(self.width % self.num_heads == 0, "SentenceBERT.num_heads", self.num_heads,
                f"a divisor of width {self.width}")  # fmt: skip
        require(self.max_length <= self.positions, "SentenceBERT.max_length", self.max_length,
                f"at most positions, {self.positions}")  # fmt: skip

    @property
    def pooled_dim(self) -> int:
        """Width of the vector of a caption."""
        return self.width


@settings
class TextConditioner:
    """Text conditioning: the encoded caption as cross-attention context, plus a pooled vector if
    the encoder has one."""

    name: ClassVar[str] = "text_encoder"
    inputs: ClassVar[tuple[str, ...]] = ("caption",)

    encoder: TextTransformer | CLIPText | BERTText | SentenceBERT = field(
        default_factory=TextTransformer
    )
    tokenizer: Literal["word", "bpe", "clip", "bert"] = "word"
    """`word` and `bpe` tokenizers are made from the training captions; `clip` and `bert` come with
    the model that a run starts from (`train.py --init` or `--text_encoder`)."""
    dropout: Share = 0.1
    """Share of training examples whose caption is dropped, for classifier-free guidance (CFG)."""
    extra_words: tuple[str, ...] = ()
    """Words that a tokenizer made from the captions is to know as well, to be taught later."""
    tags: CaptionTags | None = None
    """Shuffle and drop the tags of captions in training; None: captions as they are."""

    @property
    def chunked(self) -> bool:
        """Whether prompts of any length are read, in chunks between CLIP's start and end tokens,
        which tokenizers made from captions have not."""
        return isinstance(self.encoder, CLIPText) and self.tokenizer == "clip"

    @property
    def draws_maps(self) -> bool:
        """Whether a caption's map can be drawn from its words: all at once, padded with token 0."""
        made = isinstance(self.encoder, CLIPText) and not self.chunked
        return made or isinstance(self.encoder, TextTransformer)

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(self.encoder.width, getattr(self.encoder, "pooled_dim", None))


@settings
class CaptionMapConditioner:
    """Caption map: a rough image computed from the caption and concatenated to the latents, which
    teaches small models layout early.

    It must follow a `TextConditioner` whose tokenizer is made from captions, and is dropped with
    its caption.
    """

    name: ClassVar[str] = "caption_map"
    inputs: ClassVar[tuple[str, ...]] = ("caption",)
    dropout: ClassVar[float] = 0.0

    size: Side | None = None
    """Height and width of the map; None: those of the latents."""
    channels: Width | None = None
    """Channels of the map; None: as many as the latents."""
    width: Width = 1024
    """Hidden units."""

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(concat=self.channels or latent_channels)


@settings
class ClassConditioner:
    """Class conditioning: the class is embedded and added to the time embedding, or given as one
    context token."""

    name: ClassVar[str] = "class_token"
    inputs: ClassVar[tuple[str, ...]] = ("label",)

    num_classes: Entries = 10
    dropout: Share = 0.1
    """Share of training examples whose class is dropped, for classifier-free guidance (CFG)."""
    context_dim: Width | None = None
    """Width of the class token; None: add the class to the time embedding instead."""

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        if self.context_dim is None:
            return Slots(label=self.num_classes + 1)
        return Slots(self.context_dim)


@settings
class InpaintingConditioner:
    """Inpainting conditioning: mask and latents of the masked image, concatenated to the noisy
    latents, as in Stable Diffusion's inpainting models with 9 channels."""

    name: ClassVar[str] = "inpainting"
    inputs: ClassVar[tuple[str, ...]] = ("mask", "image")
    dropout: ClassVar[float] = 0.0

    form: Literal["stable_diffusion", "latent_diffusion"] = "stable_diffusion"
    """`stable_diffusion`: mask (1 in the hole, 0 elsewhere), then the latents of the image, whose
    hole is grey; `latent_diffusion`: latents of the image, whose hole is black, then the mask (1
    and -1), as in the latent diffusion paper."""
    masks: Masks = field(default_factory=Masks)
    """The masks to train with."""

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(concat=1 + latent_channels)


@settings
class NoiseAugmentation:
    """Noise on a low-resolution image, at a level that the U-Net is told (Ho 2021,
    arXiv:2106.15282, section 4); the defaults are those of Stable Diffusion's x4 upscaler."""

    process: Discrete = field(default_factory=lambda: Discrete(beta_start=1e-4, beta_end=0.02))
    """Its timesteps are the levels."""
    trained_levels: Annotated[int, Within(1, 100_000)] = 350
    """Levels below this are trained."""
    usual_level: Annotated[int, Within(0, 100_000)] = 20
    """The level of sampling, unless another is asked for."""

    def __post_init__(self) -> None:
        count = self.process.num_timesteps
        require(self.trained_levels <= count, "NoiseAugmentation.trained_levels",
                self.trained_levels, f"at most {count}, the levels that there are")  # fmt: skip
        require(self.usual_level < self.trained_levels, "NoiseAugmentation.usual_level",
                self.usual_level, f"less than trained_levels, {self.trained_levels}")  # fmt: skip


@settings
class LowResConditioner:
    """Super-resolution: a low-resolution image, concatenated to the latents.

    It has the latents' size; so pictures become as many times larger as the first stage's factor.
    """

    name: ClassVar[str] = "low_res"
    dropout: ClassVar[float] = 0.0

    degradation: Degradation = field(default_factory=Bicubic)
    """How training images are made small: `bicubic`, or BSRGAN's blur, noise and JPEG."""
    noise: NoiseAugmentation | None = None
    """Noise added to the low-resolution image, whose level the U-Net is told."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads of an example."""
        return ("low_res",) if self.noise is None else ("low_res", "noise_level")

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(label=self.noise and self.noise.process.num_timesteps, concat=3)


@settings
class ClassMapConditioner:
    """Semantic synthesis: a class for each pixel. One-hot, averaged down to the latents' size,
    projected and concatenated to the latents."""

    name: ClassVar[str] = "class_map"
    inputs: ClassVar[tuple[str, ...]] = ("class_map",)

    maps: ClassMaps = field(default_factory=ClassMaps)
    """The classes, and how files say them."""
    class_names: tuple[str, ...] = ()
    """What the classes are called, for people."""
    channels: Width = 3
    """Channels that the classes are projected to."""
    dropout: Share = 0.1
    """Share of training examples whose map is dropped, for classifier-free guidance (CFG)."""

    def __post_init__(self) -> None:
        _check_names("ClassMapConditioner", self.class_names, self.maps.num_classes)

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(concat=self.channels)


@settings
class LayoutConditioner:
    """Layout conditioning: boxes with classes, as tokens for a transformer, whose output is the
    cross-attention context."""

    name: ClassVar[str] = "layout_encoder"

    tokens: LayoutTokens = field(default_factory=LayoutTokens)
    """How boxes become tokens."""
    class_names: tuple[str, ...] = ()
    """What the classes are called, in files of boxes and for people."""
    width: Width = 512
    layers: Annotated[int, Within(1, 256)] = 16
    num_heads: Width = 8
    head_dim: Width = 64
    box_map_channels: Width | None = None
    """Also paint the boxes as a class map, projected to so many channels and concatenated to the
    latents, which teaches small models early which class belongs where; None: tokens alone, as in
    published models."""
    dropout: Share = 0.1
    """Share of training examples whose boxes are dropped, for classifier-free guidance (CFG)."""

    def __post_init__(self) -> None:
        _check_names("LayoutConditioner", self.class_names, self.tokens.num_classes)

    @property
    def encoder(self) -> BERTText:
        """The transformer."""
        return BERTText(
            self.tokens.vocab_size, self.tokens.length, self.width, self.layers, self.num_heads,
            self.head_dim,
        )  # fmt: skip

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it reads of an example."""
        return ("boxes",) if self.box_map_channels is None else ("boxes", "box_map")

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(self.width, concat=self.box_map_channels or 0)


@settings
class EditConditioner:
    """Editing by instruction (Brooks 2022, arXiv:2211.09800): the latents of the picture to edit,
    concatenated to those of its edited version; the caption is the instruction.

    They are the mode of the posterior, unscaled, and zero where there is no picture.
    """

    name: ClassVar[str] = "edit"
    inputs: ClassVar[tuple[str, ...]] = ("edit_image", "edit_given")

    dropout: Share = 0.1
    """Share of training examples whose picture to edit is dropped, for guidance by it."""
    dropped_with_caption: Share = 0.05
    """Share of training examples whose picture and caption are both dropped, counted in the dropout
    of either; without a caption it plays no part."""

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(concat=latent_channels)


@settings
class DepthConditioner:
    """Depth to image: how near each place is, concatenated to the latents, as in Stable Diffusion
    2's depth model.

    Any depth maps do whose nearest places have the largest numbers, in whatever unit: each is
    brought to [-1, 1].
    """

    name: ClassVar[str] = "depth"
    inputs: ClassVar[tuple[str, ...]] = ("depth",)
    dropout: ClassVar[float] = 0.0

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(concat=1)


@settings
class SizeConditioner:
    """Size and crop as conditions (Podell 2023, arXiv:2307.01952, section 2.2): the model is told
    how large a training picture was, where it was cropped, and how large it is shown, so that
    drawings look neither enlarged nor cut off though some training pictures were.

    Drawings are asked for as pictures of their own size that are not cropped.
    """

    name: ClassVar[str] = "size"
    inputs: ClassVar[tuple[str, ...]] = ("size",)
    dropout: ClassVar[float] = 0.0

    width: Width = 256
    """Width of the sinusoidal embedding of each of the six numbers."""

    def __post_init__(self) -> None:
        require(self.width % 2 == 0, "SizeConditioner.width", self.width, "even")

    def slots(self, latent_channels: int) -> Slots:
        """What it gives the U-Net."""
        return Slots(pooled=6 * self.width)


Conditioner = (
    TextConditioner
    | CaptionMapConditioner
    | ClassConditioner
    | InpaintingConditioner
    | LowResConditioner
    | ClassMapConditioner
    | LayoutConditioner
    | EditConditioner
    | DepthConditioner
    | SizeConditioner
)
WITH_EMPTY = frozenset({"caption", "label", "class_map", "boxes", "edit_given"})
"""Inputs that have a value for no condition."""
WITHOUT_PICTURES = frozenset({"caption", "label", "size"})
"""Inputs that no file must be named for."""
ENCODED_CAPTION = ("caption_states", "caption_pooled")
"""Inputs beside `caption` where a text encoder has read it before."""


def _check_names(where: str, names: tuple[str, ...], count: int) -> None:
    require(not names or len({*names}) == len(names) == count, f"{where}.class_names", names,
            f"() or {count} different names, one for each class")  # fmt: skip


def find(conditioners: Sequence[Any], kind: type) -> Conditioner | None:
    """The one of that kind, or None."""
    return next((c for c in conditioners if isinstance(c, kind)), None)


def concat_slice(conditioners: Sequence[Conditioner], kind: type, latent_channels: int) -> slice:
    """Which of the concatenated channels come from the conditioner of that kind."""
    before = 0
    for conditioner in conditioners:
        channels = conditioner.slots(latent_channels).concat
        if isinstance(conditioner, kind):
            return slice(before, before + channels)
        before += channels
    raise ValueError(f"there is no {kind.__name__}")


def slots_of(conditioners: Sequence[Conditioner], latent_channels: int) -> Slots:
    """What all of them together give the U-Net.

    Contexts follow each other, so their widths must be the same; channels and pooled vectors are
    put side by side.

    Raises:
        ConfigError: contexts of different widths, two classes, two conditioners of one kind, a
            caption's map without the text encoder that it is drawn from, or shares of examples to
            drop that cannot all be.
    """
    names = [conditioner.name for conditioner in conditioners]
    require(len(set(names)) == len(names), "conditioners", names, "of different kinds")
    if "caption_map" in names:
        text = find(conditioners[: names.index("caption_map")], TextConditioner)
        require(text is not None and text.draws_maps, "conditioners", names,
                "a caption_map only after a text_encoder that is a TextTransformer, or a CLIPText "
                "with a tokenizer made from captions")  # fmt: skip
    _check_edit_dropout(find(conditioners, EditConditioner), find(conditioners, TextConditioner))
    each = [conditioner.slots(latent_channels) for conditioner in conditioners]
    context = {slots.context for slots in each} - {None}
    require(len(context) <= 1, "conditioners", sorted(context), "contexts of one width")
    label = [slots.label for slots in each if slots.label is not None]
    require(len(label) <= 1, "conditioners", names, "one class at most")
    pooled = sum(slots.pooled or 0 for slots in each)
    return Slots(
        context.pop() if context else None,
        pooled or None,
        label[0] if label else None,
        sum(slots.concat for slots in each),
    )


def _check_edit_dropout(edit: EditConditioner | None, text: TextConditioner | None) -> None:
    if edit is None or text is None or not edit.dropout:
        return
    both, where = edit.dropped_with_caption, "EditConditioner.dropped_with_caption"
    most = min(edit.dropout, text.dropout)
    require(both <= most, where, both,
            f"at most {most:g}, the smaller dropout of picture and caption")  # fmt: skip
    least = edit.dropout + text.dropout - 1
    require(both >= least, where, both,
            f"at least {least:g}, as both dropouts together are above 1")  # fmt: skip
