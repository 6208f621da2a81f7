"""Where images come from."""

from dataclasses import field
from typing import Annotated, Literal

from ldm_jax.config.checks import ImageSize, Share, Within, height_and_width, require, settings


@settings
class DigitScenes:
    """The embedded dataset of composed handwriting; see `ldm_jax.data.digit_scenes`."""

    data_dir: str = "data"
    """Where the built dataset lies; it is built there if it is absent."""
    max_digits: Annotated[int, Within(1, 3)] = 3
    """Only scenes of at most this many digits are used."""


@settings
class ImageFolder:
    """A folder of images: class subfolders, `metadata.jsonl`, or a `.txt` beside each image."""

    path: str = ""
    resize: Literal["shorter_side", "exact", "none"] = "shorter_side"
    """`shorter_side` keeps the shape and leaves the rest to the crop; `exact` distorts; `none`
    crops from images as large as they are."""
    crop: Literal["center", "random"] = "center"
    flip: bool = False
    """Mirror half of the training images left to right."""
    on_broken: Literal["stop", "skip"] = "stop"
    """What an unreadable image does to the run; skipped ones are named and counted."""
    validation_fraction: Share = 0.05
    """Share of the images kept for validation, chosen by a hash of the name."""


@settings
class EncodedLatents:
    """A data set that `python -m ldm_jax.cli.encode` has encoded, for stage two."""

    path: str = ""


@settings
class Data:
    source: DigitScenes | ImageFolder | EncodedLatents = field(default_factory=DigitScenes)
    image_size: ImageSize = 32
    """Pixels of the training images: 32 for a square, or (height, width)."""
    batch_size: Annotated[int, Within(1, 2**20)] = 64
    """Examples per optimiser step, over all devices and accumulation steps."""
    workers: Annotated[int, Within(0, 1024)] = 0
    """Loader processes; 0 loads in threads of the training process."""

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the training images in pixels."""
        return height_and_width("data.image_size", self.image_size)

    def __post_init__(self) -> None:
        self.sides  # noqa: B018 - its own checks
        if isinstance(self.source, DigitScenes):
            sizes = (16, 32, 64)
            require(self.image_size in sizes, "data.image_size", self.image_size, f"one of {sizes}")
