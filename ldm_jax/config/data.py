"""Where images come from."""

from dataclasses import dataclass, field
from typing import Literal

from ldm_jax.config.checks import require, require_fraction, require_positive


@dataclass(frozen=True)
class DigitScenes:
    """The embedded dataset of composed handwriting; see `ldm_jax.data.digit_scenes`."""

    data_dir: str = "data"
    """Where the built dataset lies; it is built there if it is absent."""
    max_digits: int = 3
    """Only scenes of at most this many digits are used."""

    def __post_init__(self) -> None:
        require(
            self.max_digits in (1, 2, 3), "DigitScenes.max_digits", self.max_digits, "1, 2 or 3"
        )


@dataclass(frozen=True)
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
    validation_fraction: float = 0.05
    """Share of the images kept for validation, chosen by a hash of the name."""

    def __post_init__(self) -> None:
        require_fraction(self, "validation_fraction")


@dataclass(frozen=True)
class EncodedLatents:
    """A data set that `python -m ldm_jax.cli.encode` has encoded, for stage two."""

    path: str = ""


@dataclass(frozen=True)
class Data:
    source: DigitScenes | ImageFolder | EncodedLatents = field(default_factory=DigitScenes)
    image_size: int = 32
    """Height and width of the training images in pixels."""
    batch_size: int = 64
    """Examples per optimiser step, over all devices and accumulation steps."""
    workers: int = 0
    """Loader processes; 0 loads in threads of the training process."""

    def __post_init__(self) -> None:
        require_positive(self, "image_size", "batch_size")
        require(self.workers >= 0, "data.workers", self.workers, "0 or more")
        if isinstance(self.source, DigitScenes):
            sizes = (16, 32, 64)
            require(self.image_size in sizes, "data.image_size", self.image_size, f"one of {sizes}")
