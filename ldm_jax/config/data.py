"""Where images come from."""

from dataclasses import field
from typing import Annotated, Literal

from ldm_jax.config.checks import (
    ImageSize,
    Share,
    Weight,
    Within,
    height_and_width,
    require,
    settings,
)


@settings
class DigitScenes:
    """DigitScenes, the built-in data set of composed handwriting; see docs/digit_scenes.md."""

    data_dir: str = "data"
    """Folder of the built data set; it is built there if absent."""
    max_digits: Annotated[int, Within(1, 3)] = 3
    """Use only scenes of at most this many digits."""
    box_classes: Literal["digits", "coloured_digits"] = "digits"
    """What the boxes' classes are: ten digits (`three`), or the sixty of digit and colour (`red
    three`)."""


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
    """Share of the images held out for validation, chosen by a hash of the file name."""


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

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("class_prompts", "prior_weight"):
            usual = type(self).__dataclass_fields__[name].default
            value = getattr(self, name)
            require(bool(self.class_path) or value == usual, f"data.source.{name}", value,
                    f"{usual!r} without data.source.class_path, a folder")  # fmt: skip
        for prompt in self.class_prompts:
            require(bool(prompt.strip()) and "/" not in prompt, "data.source.class_prompts", prompt,
                    "a prompt without '/', for it is the name of a folder")  # fmt: skip


@settings
class EncodedLatents:
    """Latents precomputed by `python -m ldm_jax.cli.encode`, for stage two."""

    path: str = ""
    """The folder."""


@settings
class Data:
    source: DigitScenes | ImageFolder | DreamBooth | EncodedLatents = field(
        default_factory=DigitScenes
    )
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
        if isinstance(self.source, DigitScenes):
            sizes = (16, 32, 64)
            require(self.image_size in sizes, "data.image_size", self.image_size, f"one of {sizes}")
