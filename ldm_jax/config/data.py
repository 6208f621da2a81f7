"""Where images come from."""

import math
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from ldm_jax.config.checks import (
    ImageSize,
    Positive,
    Share,
    Side,
    Weight,
    Within,
    height_and_width,
    require,
    settings,
)
from ldm_jax.core.stores import as_path


@settings
class DigitScenes:
    """DigitScenes, the built-in data set of composed handwriting; see docs/digit_scenes.md."""

    data_dir: str = "data"
    """Folder of the built data set; it is built there if absent."""
    min_digits: Annotated[int, Within(1, 3)] = 1
    """Use only scenes of at least this many digits."""
    max_digits: Annotated[int, Within(1, 3)] = 3
    """Use only scenes of at most this many digits."""
    box_classes: Literal["digits", "coloured_digits"] = "digits"
    """What the boxes' classes are: ten digits (`three`), or the sixty of digit and colour (`red
    three`)."""

    def __post_init__(self) -> None:
        require(self.min_digits <= self.max_digits, "DigitScenes.min_digits", self.min_digits,
                f"at most max_digits {self.max_digits}")  # fmt: skip


@settings
class FittedPictures:
    """A folder of pictures of all sizes, and how they become pictures of one."""

    path: str = ""
    """The folder."""
    resize: Literal["shorter_side", "exact", "none"] = "shorter_side"
    """`shorter_side`: resize the shorter side to image_size, then crop; `exact`: stretch to
    image_size; `none`: crop without resizing."""
    crop: Literal["center", "random"] = "center"
    """Position of the crop; `random` is data augmentation."""
    smallest_crop: Annotated[float, Within(0.05, 1.0)] = 1.0
    """Random crops also differ in size: their sides are a share of the largest crop's, uniform
    between this and 1, resized to image_size. Published super-resolution models had 0.5."""
    flip: bool = False
    """Data augmentation: mirror half of the training images left to right."""
    on_broken: Literal["stop", "skip"] = "stop"
    """Whether an unreadable image stops the run or is skipped with a warning."""

    def __post_init__(self) -> None:
        require(
            self.smallest_crop == 1 or (self.crop, self.resize) == ("random", "shorter_side"),
            "data.source.smallest_crop", self.smallest_crop,
            "1, but with crop 'random' and resize 'shorter_side'",
        )  # fmt: skip


@settings
class Buckets:
    """Aspect-ratio buckets: pictures keep their proportions and are cropped a little, each to the
    size among these whose proportions are nearest. A batch has pictures of one size. The sizes
    have about the area of data.image_size."""

    step: Side = 64
    """Sides are multiples of this; Stable Diffusion needs 64."""
    shortest: Side = 256
    """Sides are at least this many pixels."""
    longest: Side = 1024
    """Sides are at most this many pixels."""
    sizes: tuple[tuple[Side, Side], ...] = ()
    """Exactly these sizes, (height, width), in place of those that the other settings give."""

    def __post_init__(self) -> None:
        require(self.shortest <= self.longest, "buckets.shortest", self.shortest,
                f"at most buckets.longest, {self.longest}")  # fmt: skip
        require(self.shortest % self.step == 0, "buckets.shortest", self.shortest,
                f"a multiple of buckets.step, {self.step}")  # fmt: skip
        require(len({*self.sizes}) == len(self.sizes), "buckets.sizes", self.sizes,
                "different sizes")  # fmt: skip

    def all_sizes(self, sides: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Heights and widths, of about the area of `sides`: each width with the greatest height
        that does not exceed the area, both orientations, and the square. 17 for 512 x 512 with the
        usual settings."""
        area, step = math.prod(sides), self.step
        side = math.isqrt(area) // step * step
        found = {*self.sizes} or {(side, side)}
        for width in () if self.sizes else range(self.shortest, self.longest + 1, step):
            height = min(self.longest, area // width // step * step)
            if height >= self.shortest:
                found |= {(height, width), (width, height)}
        return tuple(sorted(found, key=lambda size: size[::-1]))


@settings
class ImageFolder(FittedPictures):
    """A folder of images, with captions (`metadata.jsonl`, `metadata.csv` or a `.txt` beside each
    image) or classes (subfolders)."""

    boxes: str = ""
    """File of boxes: the folder's metadata.jsonl, or an annotation file of COCO; see
    docs/task_data.md."""
    box_classes: tuple[str, ...] = ()
    """The classes of boxes in order; (): those that occur in the file."""
    class_maps: str = ""
    """Folder of class maps, PNG files with the names of the images."""
    edit_images: str = ""
    """Where the pictures are that the images are edited versions of: a folder with files of the
    images' names, or the folder's metadata.jsonl, whose lines name them as "edit_image"."""
    depth_maps: str = ""
    """Folder of depth maps, PNG or .npy files with the names of the images."""
    validation_fraction: Share = 0.05
    """Share of the images held out for validation, chosen by a hash of the file name, where there
    is no validation_path."""
    validation_path: str = ""
    """A folder of images for validation, with captions or classes as `path` has; "": some of
    `path` are held out."""
    buckets: Buckets | None = None
    """Train on pictures of several proportions; None: all become data.image_size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bucketed(self.buckets, self.resize)


def _check_bucketed(buckets: Buckets | None, resize: str) -> None:
    require(buckets is None or resize == "shorter_side", "data.source.resize", resize,
            "shorter_side with data.source.buckets")  # fmt: skip


@settings
class DreamBooth(FittedPictures):
    """A few pictures of some subjects, in subfolders that are called by number of repeats and
    prompt, such as `10_sks dog`; beside them, against forgetting, pictures of the subjects' classes
    (Ruiz 2022). Half of each batch is of these."""

    path: str = ""
    """The folder of subjects."""
    prompt: str = ""
    """The prompt of pictures that lie in `path` itself, such as "a photo of sks dog"."""
    class_path: str = ""
    """The folder of classes, with subfolders such as `1_dog`; "": no prior preservation."""
    class_prompts: tuple[str, ...] = ()
    """Prompts of classes, such as "a photo of a dog": what is missing of their pictures is drawn by
    the model that is trained, before it is."""
    class_images: Annotated[int, Within(1, 2**20)] = 100
    """How many pictures there shall be for each of class_prompts; 200 to 300 are usual."""
    prior_weight: Weight = 1.0
    """What the loss of pictures of classes counts for, beside that of subjects."""
    buckets: Buckets | None = None
    """Train on pictures of several proportions, those of the subjects; pictures of classes are
    cropped to the size of those beside them. None: all become data.image_size."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_bucketed(self.buckets, self.resize)
        for name in ("class_prompts", "prior_weight"):
            usual = type(self).__dataclass_fields__[name].default
            value = getattr(self, name)
            require(bool(self.class_path) or value == usual, f"data.source.{name}", value,
                    f"{usual!r} without data.source.class_path, a folder")  # fmt: skip
        for prompt in self.class_prompts:
            require(bool(prompt.strip()) and "/" not in prompt, "data.source.class_prompts", prompt,
                    "a prompt without '/', for it is the name of a folder")  # fmt: skip


@settings
class Shards(FittedPictures):
    """Pictures in shards of records, as `python -m ldm_jax.cli.shards` writes them, with their own
    split for validation; see docs/shards.md."""

    path: str = ""
    """The folder of shards."""


@settings
class WebDataset(FittedPictures):
    """Pictures in tar files of WebDataset's layout, read where they are in any order; `python -m
    ldm_jax.cli.webdataset` makes the index for it. See docs/shards.md."""

    path: str = ""
    """The tar files: one, a folder of them, or a name such as train-{000000..000099}.tar."""
    validation_path: str = ""
    """Those for validation; "": none."""
    index: str = ""
    """The folder of the index; "": the folder `index` beside the tar files."""
    caption: str = "txt"
    """Where captions are: `txt`, the member KEY.txt, or `json.NAME`, a text in KEY.json."""
    label: str = "cls"
    """Where classes are: `cls`, a number in KEY.cls, or `json.NAME`, a number in KEY.json."""
    class_names: tuple[str, ...] = ()
    """What the classes' numbers mean; (): the numbers, where each example has a `cls`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("caption", "label"):
            value, own = getattr(self, name), type(self).__dataclass_fields__[name].default
            named = value.startswith("json.") and len(value) > len("json.")
            require(value == own or named, f"data.source.{name}", value,
                    f"{own}, or json. and a name")  # fmt: skip
        require(self.label == "cls" or len(self.class_names) > 0, "data.source.class_names",
                self.class_names, f"given with data.source.label={self.label}")  # fmt: skip


@settings
class TFDS(FittedPictures):
    """A data set of TensorFlow Datasets that is prepared in array_record files; see
    docs/shards.md."""

    path: str = ""
    """The folder that was its data_dir."""
    name: str = ""
    """Such as cifar10, or name/config, or name/config:1.0.0."""
    split: str = "train"
    """Which of its splits is trained on."""
    validation_split: str = ""
    """Which of its splits is for validation; "": none."""
    image: str = "image"
    """The feature that has the picture."""
    caption: str = ""
    """The feature that has the caption, a text; "": none."""
    label: str = ""
    """The feature that has the class; "": none."""


@settings
class EncodedLatents:
    """Latents precomputed by `python -m ldm_jax.cli.encode`, for stage two."""

    path: str = ""
    """The folder."""


@settings
class Mixture:
    """Several sources, of which each batch has shares by their weights. All must have captions, or
    none, and the same classes; for validation each gives what it has. See docs/shards.md."""

    sources: tuple[
        DigitScenes | ImageFolder | Shards | WebDataset | TFDS | EncodedLatents, ...
    ] = ()  # fmt: skip
    """The sources."""
    weights: tuple[Positive, ...] = ()
    """What each is shown for, in proportion; (): how many examples it has."""

    def __post_init__(self) -> None:
        require(len(self.weights) in (0, len(self.sources)), "data.source.weights", self.weights,
                f"one for each of the {len(self.sources)} sources, or none")  # fmt: skip


Source = (
    DigitScenes | ImageFolder | DreamBooth | Shards | WebDataset | TFDS | EncodedLatents | Mixture
)  # fmt: skip


def sources_in(source: Source) -> tuple[Source, ...]:
    """The sources of a mixture; another source itself."""
    return source.sources if isinstance(source, Mixture) else (source,)


def has_kind(source: Source, kind: Any) -> bool:
    """Whether a source, or one of a mixture, is of a kind."""
    return any(isinstance(one, kind) for one in sources_in(source))


def called(source: Source) -> str:
    """What a source is called in messages: its folder, or its kind."""
    return getattr(source, "path", type(source).__name__)


def folders_of(source: Source) -> tuple[Path, ...]:
    """The folders that a source reads as a whole."""
    found = []
    for one in sources_in(source):
        named = [getattr(one, name, "") for name in ("path", "validation_path", "class_path")]
        paths = [as_path(name) for name in named if name]
        if isinstance(one, WebDataset):
            paths = [path for path in paths if path.suffix != ".tar"]
        found += paths
    return tuple(found)


@settings
class Data:
    source: Source = field(default_factory=DigitScenes)
    image_size: ImageSize = 32
    """Size of the training images in pixels: 32 for a square, or height and width."""
    batch_size: Annotated[int, Within(1, 2**20)] = 64
    """Images per optimiser step, in total over all devices and accumulation steps."""
    workers: Annotated[int, Within(0, 1024)] = 0
    """Processes that load data; 0: threads in the training process. Try 4 if the GPU waits for
    data."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the training images in pixels."""
        return height_and_width("data.image_size", self.image_size)

    def __post_init__(self) -> None:
        self.sides  # noqa: B018 - its own checks
        if has_kind(self.source, DigitScenes):
            sizes = (16, 32, 64)
            require(self.image_size in sizes, "data.image_size", self.image_size, f"one of {sizes}")
        if self.buckets is not None and not self.buckets.sizes:
            require(self.buckets.step <= min(self.sides), "data.source.buckets.step",
                    self.buckets.step,
                    f"at most {min(self.sides)}, a side of data.image_size")  # fmt: skip
        if isinstance(self.source, DreamBooth) and self.buckets and self.source.class_path:
            require(self.batch_size % 2 == 0, "data.batch_size", self.batch_size,
                    "even with data.source.buckets and data.source.class_path")  # fmt: skip

    @property
    def buckets(self) -> Buckets | None:
        """The sizes of training images, where there are several."""
        return getattr(self.source, "buckets", None)
