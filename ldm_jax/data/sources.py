"""Random-access sources of training examples: what they have in common."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8

from ldm_jax import config as cfg
from ldm_jax.data.transforms import Crop

Split = Literal["train", "validation", "test"]


class DataError(ValueError):
    """Files that do not make a dataset, or an image that cannot be read."""


class Example(TypedDict):
    """One example: `image` uint8 [h, w, 3], `caption` ('' without one), `label` (0 without).

    Encoded ones have instead of an image `encoded`, as `ldm_jax.data.encoded_latents` says.
    """

    image: NotRequired[UInt8[np.ndarray, "h w 3"]]
    encoded: NotRequired[Float[np.ndarray, "h w z"] | Int[np.ndarray, "h w"]]
    boxes: NotRequired[Float[np.ndarray, "n 4"]]
    """Of what is seen: top, left, bottom, right as shares of the whole image."""
    classes: NotRequired[Int[np.ndarray, " n"]]
    """The class of each box."""
    flags: NotRequired[Int[np.ndarray, " n"]]
    """What else is known of each box: bit i is `cfg.FLAGS[i]`."""
    class_map: NotRequired[Int[np.ndarray, "h w"] | Path]
    """The class of each pixel of the whole image, -1: none; or the file that has them."""
    edit_image: NotRequired[UInt8[np.ndarray, "h w 3"]]
    """The picture that `image` is an edited version of."""
    depth: NotRequired[Path]
    """The file with the depth of each place of the whole image."""
    fitting: NotRequired[cfg.FittedPictures]
    """How the image is resized and cropped, where its source says it of each."""
    importance: NotRequired[float]
    """What its loss counts for; 1 where there is none."""
    crop: NotRequired[Crop]
    """What is shown of the whole image, once it has been fitted."""
    file: NotRequired[Path | bytes]
    """Of the image, which may have been read smaller than it is; or what it holds."""
    size: NotRequired[Int[np.ndarray, " 6"]]
    """`Crop.told` of an encoded image."""
    caption_states: NotRequired[Float[np.ndarray, "l d"]]
    """What a text encoder made of the caption: the state of each token,"""
    caption_pooled: NotRequired[Float[np.ndarray, " p"]]
    """and a vector of them all."""
    caption: str
    label: int
    name: str
    """What the source calls it: a file's path below its folder, or split and number."""


@dataclass(frozen=True)
class Parts:
    """The parts of a source, one after the other, each of which is gone through by itself."""

    sizes: tuple[int, ...]
    """How many examples each has."""
    weights: tuple[float, ...]
    """What each is shown for, in proportion."""


@runtime_checkable
class Source(Protocol):
    """Examples by number, the same at every call."""

    class_names: tuple[str, ...]
    """What the labels mean; empty where there are no classes."""
    has_captions: bool
    has_images: bool
    """Whether examples have images, not latents."""
    box_classes: tuple[str, ...] | None
    """Names of the classes of boxes; None where there are no boxes."""
    map_classes: int | None
    """How many classes class maps have at most, 0 where nobody knows; None where there are no
    maps."""
    beside: frozenset[str]
    """Which of `edit_image` and `depth` examples have."""
    fingerprint: str
    """What a run may be continued on: the same names, classes and captions in the same order."""
    found: str
    """What there is, and what was left out and why, in a line for the user."""
    broken: dict[str, str]
    """Images skipped so far by this process, and why."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def captions(self) -> Iterator[str]:
        """All captions, in order; nothing where there are none."""
        ...

    def labels(self) -> Iterator[int]:
        """All labels, in order; nothing where there are no classes."""
        ...

    def names(self) -> Iterator[str]:
        """What the examples are called, in order; nothing where they are no files of the user's."""
        ...


@runtime_checkable
class Parted(Protocol):
    """A source of several parts."""

    parts: Parts


def parts_of(source: Source) -> Parts:
    """The parts of a source; itself where it has none."""
    return source.parts if isinstance(source, Parted) else Parts((len(source),), (1.0,))


def open_source(data: cfg.Data, split: Split) -> Source:
    """The examples of one split.

    DigitScenes come at the size of `data` and are built where they are absent; of several
    processes on a file system one builds and the others wait for it. Images of a folder come at
    their own size (JPEG at least twice that of `data`; see `FolderSource`), and a folder has no
    test split, one of subjects training examples alone. Encoded latents have the splits that were
    encoded, shards those that were written; a mixture what its sources have.

    Raises:
        DataError: the folder does not make a dataset, or the split is empty.
    """
    source, sides = data.source, data.sides
    if isinstance(source, cfg.DigitScenes):
        from ldm_jax.data.digit_scenes_source import DigitScenesSource

        return DigitScenesSource(source, sides[0], split)
    if isinstance(source, cfg.EncodedLatents):
        from ldm_jax.data.encoded_latents import LatentsSource

        return LatentsSource(source, sides, split)
    if isinstance(source, cfg.DreamBooth):
        from ldm_jax.data.concepts import ConceptSource

        return ConceptSource(source, sides, split)
    if isinstance(source, cfg.Mixture):
        from ldm_jax.data.mixtures import MixtureSource

        return MixtureSource(data, split)
    if isinstance(source, cfg.Shards):
        from ldm_jax.data.shards_source import ShardsSource

        return ShardsSource(source, sides, split)
    if isinstance(source, cfg.TFDS):
        from ldm_jax.data.tfds_source import TFDSSource

        return TFDSSource(source, sides, split)
    if isinstance(source, cfg.WebDataset):
        from ldm_jax.data.tar_source import TarSource

        return TarSource(source, sides, split)
    from ldm_jax.data.folders import FolderSource

    return FolderSource(source, sides, split)


def check_alike(first: Source, second: Source) -> None:
    """Raises DataError, which says what both have, unless one model can be shown both sources."""
    for what, one, other in (
        ("images instead of latents", first.has_images, second.has_images),
        ("captions", first.has_captions, second.has_captions),
        ("classes", first.class_names, second.class_names),
    ):
        if one != other:
            told = [", ".join(has)[:80] if isinstance(has, tuple) and has else
                    "yes" if has else "none" for has in (one, other)]  # fmt: skip
            raise DataError(
                f"data that are used together must all have the same {what}: {told[0]} in "
                f"{first.found}; {told[1]} in {second.found}"
            )


def has_validation(source: cfg.Source) -> bool:
    """Whether a source keeps examples for validation."""
    match source:
        case cfg.Mixture(sources=sources):
            return any(map(has_validation, sources))
        case cfg.DreamBooth():
            return False
        case cfg.ImageFolder(validation_fraction=share, validation_path=path):
            return bool(share or path)
        case cfg.WebDataset(validation_path=path):
            return bool(path)
        case cfg.TFDS(validation_split=name):
            return bool(name)
        case cfg.Shards():
            from ldm_jax.data.shards_source import has_split

            return has_split(source, "validation")
        case cfg.EncodedLatents():
            from ldm_jax.data.encoded_latents import is_encoded

            return is_encoded(source, "validation")
    return True
