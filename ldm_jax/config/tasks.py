"""How the conditions of super-resolution, inpainting, layout and semantic synthesis are made from
training images and their annotations."""

from dataclasses import field
from typing import Annotated, Literal

from ldm_jax.config.checks import (
    Count,
    CountOrNone,
    Entries,
    Share,
    Side,
    Weight,
    Within,
    require,
    settings,
)

# ------------------------------------------------------------------------------------ captions


@settings
class CaptionTags:
    """Captions that are tags between commas, changed anew each time an example is seen, so that a
    model does not depend on their order or on any one of them."""

    shuffle: bool = True
    """Put the tags in random order."""
    dropout: Share = 0.0
    """Leave out each tag with this probability."""
    keep_first: CountOrNone = 0
    """So many tags at the beginning stay where they are and are never left out."""
    keep_before: str = ""
    """In captions that contain this mark, such as |||, what stands before it is kept instead; the
    mark itself is no part of the caption."""


# ---------------------------------------------------------------------------- super-resolution


@settings
class Bicubic:
    """Low-resolution images by antialiased bicubic resizing."""


@settings
class BSRGAN:
    """Low-resolution images by a random chain of blur, resizing, noise and JPEG (Zhang et al.
    2021), for real photographs of unknown quality."""

    light: bool = False
    """Weaker blur, noise and compression, as the published x4 model of latent diffusion has it."""


Degradation = Bicubic | BSRGAN

# ---------------------------------------------------------------------------------- inpainting

_Length = Annotated[int, Within(1, 16384)]
_Gap = Annotated[int, Within(0, 16384)]
_Number = Annotated[int, Within(1, 1000)]


@settings
class Strokes:
    """Holes in the shape of brush strokes with corners; numbers are uniform between their ends."""

    weight: Weight = 1.0
    """How often holes are strokes, relative to the weight of boxes."""
    min_count: _Number = 1
    max_count: _Number = 5
    """Strokes per mask; each has one to five straight segments."""
    min_length: _Length = 10
    max_length: _Length = 209
    """Length of a segment in pixels."""
    min_width: _Length = 5
    max_width: _Length = 104
    """Width of a segment in pixels."""

    def __post_init__(self) -> None:
        _require_order(self, "count", "length", "width")


@settings
class Boxes:
    """Holes in the shape of rectangles; numbers are uniform between their ends."""

    weight: Weight = 1.0
    """How often holes are boxes, relative to the weight of strokes."""
    min_count: _Number = 1
    max_count: _Number = 4
    """Boxes per mask; they may overlap."""
    min_side: _Length = 30
    max_side: _Length = 150
    """Height and width, each drawn on its own, in pixels."""
    margin: _Gap = 10
    """Pixels at the picture's border that no box touches."""

    def __post_init__(self) -> None:
        _require_order(self, "count", "side")


@settings
class Masks:
    """Random masks for inpainting (LaMa, Suvorov et al. 2022): strokes or boxes, by their weights.

    The defaults are those LaMa is trained with; `training`, `thick`, `medium` and `thin` make its
    other settings.
    """

    strokes: Strokes = field(default_factory=Strokes)
    boxes: Boxes = field(default_factory=Boxes)
    all_masked: Share = 0.0
    """Share of the images that are masked as a whole; 0.25 for Stable Diffusion's inpainting."""
    max_share: Annotated[float, Within(0.0, 1.0, above=True)] = 1.0
    """Other masks that cover a larger share of the image are drawn anew."""
    side: Side | None = 256
    """Shorter side of the image that all lengths are meant for: for other sizes they are scaled in
    proportion. None: lengths are pixels whatever the size."""

    def __post_init__(self) -> None:
        weights = self.strokes.weight + self.boxes.weight
        require(weights > 0, "Masks.boxes.weight", self.boxes.weight, "above 0, or strokes' must")
        if self.side is not None and self.boxes.weight > 0:
            widest = self.side - 2 * self.boxes.margin
            require(
                self.boxes.max_side <= widest, "Masks.boxes.max_side", self.boxes.max_side,
                f"at most {widest}, which is Masks.side less the margins",
            )  # fmt: skip

    @classmethod
    def training(cls) -> "Masks":
        """LaMa's for training at 256 pixels: strokes and boxes equally often."""
        return cls()

    @classmethod
    def thick(cls, side: Literal[256, 512] = 256) -> "Masks":
        """LaMa's thick masks, which it is measured with; they cover at most half of the image."""
        if side == 512:
            return cls(Strokes(1.0, 1, 5, 10, 459, 5, 254), Boxes(0.3, 1, 4, 30, 300, 10), 0.0,
                       0.5, 512)  # fmt: skip
        return cls(Strokes(), Boxes(0.3, 1, 3, 30, 150, 10), 0.0, 0.5)

    @classmethod
    def medium(cls, side: Literal[256, 512] = 256) -> "Masks":
        """LaMa's medium masks; at most half of the image."""
        if side == 512:
            return cls(Strokes(1.0, 4, 10, 10, 209, 5, 104), Boxes(0.3, 1, 5, 30, 150, 0), 0.0,
                       0.5, 512)  # fmt: skip
        return cls(Strokes(1.0, 4, 5, 10, 109, 5, 54), Boxes(0.3, 1, 5, 10, 50, 0), 0.0, 0.5)

    @classmethod
    def thin(cls, side: Literal[256, 512] = 256) -> "Masks":
        """LaMa's thin masks, of strokes only; at most half of the image."""
        if side == 512:
            return cls(Strokes(1.0, 4, 70, 10, 109, 5, 24), Boxes(0.0), 0.0, 0.5, 512)
        return cls(Strokes(1.0, 4, 50, 10, 49, 5, 14), Boxes(0.0), 0.0, 0.5)


def _require_order(part: Strokes | Boxes, *names: str) -> None:
    for name in names:
        low, high = getattr(part, f"min_{name}"), getattr(part, f"max_{name}")
        where = f"{type(part).__name__}.max_{name}"
        require(low <= high, where, high, f"at least min_{name}, which is {low}")


# -------------------------------------------------------------------------------------- layout


@settings
class LayoutTokens:
    """Boxes with classes as tokens: three for each object, its class, top left and bottom right
    corner on a grid; then two for the corners of the crop (latent diffusion's layout models)."""

    num_classes: Entries = 10
    """Classes of objects."""
    flags: tuple[Literal["group", "occluded", "depiction", "inside"], ...] = ()
    """What else an object's class token tells; ("group",) for models of COCO, all four for those
    of OpenImages."""
    max_objects: Count = 30
    """Places for objects; those that are not used hold the padding token."""
    grid: Annotated[int, Within(2, 4096)] = 90
    """Positions along each side of the picture that corners are rounded to."""
    vocab_size: Entries = 8192
    """Number of tokens; the last is padding."""
    crop: bool = True
    """Append the crop's corners, with boxes as they lie in the uncropped picture; without it boxes
    are as they lie in the crop."""
    too_many: Literal["stop", "largest"] = "stop"
    """Whether a picture of more than max_objects boxes stops the run or keeps its largest ones."""

    def __post_init__(self) -> None:
        order = tuple(name for name in FLAGS if name in self.flags)
        require(self.flags == order, "LayoutTokens.flags", self.flags, f"some of {FLAGS}, in order")
        needed = max(self.grid**2, self.num_classes * self.flag_values) + 1
        require(
            self.vocab_size >= needed, "LayoutTokens.vocab_size", self.vocab_size,
            f"at least {needed}, for classes with their flags, {self.grid} x {self.grid} corners "
            "and the padding token",
        )  # fmt: skip

    @property
    def length(self) -> int:
        """Tokens of a layout."""
        return 3 * self.max_objects + 2 * self.crop

    @property
    def padding(self) -> int:
        """The token of places without an object."""
        return self.vocab_size - 1

    @property
    def flag_values(self) -> int:
        """Number of values that an object's flags are written as: bit i is `FLAGS[i]`."""
        return 1 << FLAGS.index(self.flags[-1]) + 1 if self.flags else 1


FLAGS = ("group", "occluded", "depiction", "inside")
"""What annotations say of an object beside its class, from the lowest bit on."""

# ------------------------------------------------------------------------------- semantic maps


@settings
class ClassMaps:
    """How the numbers in files of class maps become classes."""

    num_classes: Entries = 182
    """Classes: 182 for COCO-Stuff's 0 to 181."""
    ignore: Annotated[int, Within(0, 65535)] | None = 255
    """The number in files that stands for no class; None: all are classes."""
    shift: Annotated[int, Within(-1, 1)] = 0
    """Added to every number: 1 makes the pixels of no class a class of their own, 0 (183 classes
    for COCO-Stuff, as taming-transformers counts); -1 makes 0 no class (150 for ADE20K)."""
    palette: tuple[str, ...] = ()
    """Colours of the classes 0, 1, ... in files in RGB, as names or #rrggbb; not shifted."""

    def __post_init__(self) -> None:
        require(
            not self.ignore or self.ignore + self.shift >= self.num_classes, "ClassMaps.ignore",
            self.ignore, f"None, 0, or no number of the {self.num_classes} classes",
        )  # fmt: skip
        require(
            not self.palette or len({*self.palette}) == len(self.palette) == self.num_classes,
            "ClassMaps.palette", self.palette, f"() or {self.num_classes} different colours",
        )  # fmt: skip
