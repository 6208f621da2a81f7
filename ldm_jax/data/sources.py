"""Random-access sources of training examples: what they have in common, and DigitScenes."""

import fcntl
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from ldm_jax import config as cfg

Split = Literal["train", "validation", "test"]

# Splits whose decoded pixels take less than this many bytes stay in memory after the first use.
_KEEP_BELOW = 512 * 2**20


class DataError(ValueError):
    """Files that do not make a dataset, or an image that cannot be read."""


class Example(TypedDict):
    """One example: `image` uint8 [h, w, 3], `caption` ('' without one), `label` (0 without).

    Encoded ones have instead of an image `encoded`, as `ldm_jax.data.encoded_latents` says.
    """

    image: NotRequired[UInt8[np.ndarray, "h w 3"]]
    encoded: NotRequired[Float[np.ndarray, "h w z"] | Int[np.ndarray, "h w"]]
    caption: str
    label: int
    name: str
    """What the source calls it: a file's path below its folder, or split and number."""


@runtime_checkable
class Source(Protocol):
    """Examples by number, the same at every call."""

    class_names: tuple[str, ...]
    """What the labels mean; empty where there are no classes."""
    has_captions: bool
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


def open_source(data: cfg.Data, split: Split) -> Source:
    """The examples of one split.

    DigitScenes come at the size of `data` and are built where they are absent; of several
    processes on a file system one builds and the others wait for it. Images of a folder come at
    their own size (JPEG at least twice that of `data`; see `FolderSource`), and a folder has no
    test split. Encoded latents have the splits that were encoded.

    Raises:
        DataError: the folder does not make a dataset, or the split is empty.
    """
    source, sides = data.source, data.sides
    if isinstance(source, cfg.DigitScenes):
        return DigitScenesSource(source, sides[0], split)
    if isinstance(source, cfg.EncodedLatents):
        from ldm_jax.data.encoded_latents import LatentsSource

        return LatentsSource(source, sides, split)
    from ldm_jax.data.folders import FolderSource

    return FolderSource(source, sides, split)


# ------------------------------------------------------------------------------- DigitScenes


class DigitScenesSource:
    """DigitScenes of one split with at most `max_digits` digits, read from array_record files.

    An example is decoded when it is first used (about 0.1 ms) and then kept, as long as the split
    takes less than 512 MiB.
    """

    has_captions = True

    def __init__(self, source: cfg.DigitScenes, image_size: int, split: Split):
        import tensorflow_datasets as tfds

        from ldm_jax.data.records import Records

        self.broken: dict[str, str] = {}
        self._opened_with = (source, image_size, split)
        builder = _built_digit_scenes(source.data_dir, image_size)
        features = builder.info.features
        remedy = f"delete {builder.data_path}, which the next run builds anew"
        if split not in builder.info.splits:
            raise DataError(
                f"{builder.data_path}/dataset_info.json is missing or has no {split}; {remedy}"
            )
        self._records = Records([*map(str, builder.info.splits[split].filepaths)], remedy)
        self._features = tfds.features.FeaturesDict(
            {name: features[name] for name in ("image", "caption", "label")}
        )
        self._decoders = {"image": tfds.decode.SkipDecoding()}
        self.class_names = tuple(features["label"].names)
        self.fingerprint = f"{builder.info.full_name}, at most {source.max_digits} digits"
        self._rows = np.arange(len(self._records))
        if source.max_digits < 3:
            counts = tfds.features.FeaturesDict({"count": features["count"]})
            found = [counts.deserialize_example_np(r)["count"] for r in self._records]
            self._rows = np.flatnonzero(np.array(found) <= source.max_digits)
        self.found = (
            f"{len(self._rows)} images of DigitScenes ({split}, {image_size} pixels, in "
            f"{source.data_dir}), captions, {len(self.class_names)} classes"
        )
        shape = (len(self._rows), image_size, image_size, 3)
        # Memory that is not yet written costs nothing.
        self._images = np.empty(shape, np.uint8) if np.prod(shape) < _KEEP_BELOW else None
        self._texts: dict[int, tuple[str, int, str]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader process opens the files anew instead of receiving the kept images.
        return DigitScenesSource, self._opened_with

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        known = self._texts.get(index)
        if known is not None and self._images is not None:
            return _scene(self._images[index], *known)
        record = self._records[int(self._rows[index])]
        found = self._features.deserialize_example_np(record, decoders=self._decoders)
        image = np.asarray(Image.open(io.BytesIO(found["image"])))
        name = f"{self._opened_with[2]}/{int(self._rows[index])}"
        text = (found["caption"].decode(), int(found["label"]), name)
        if self._images is not None:
            self._images[index] = image
            self._texts[index] = text  # last: its presence tells other threads that all is there
        return _scene(image, *text)

    def captions(self) -> Iterator[str]:
        """All captions, in order."""
        return (self[index]["caption"] for index in range(len(self)))


def _scene(image: UInt8[np.ndarray, "h w 3"], caption: str, label: int, name: str) -> Example:
    return {"image": image, "caption": caption, "label": label, "name": name}


def _built_digit_scenes(data_dir: str, size: int) -> Any:
    """The TFDS builder of the dataset, built if need be."""
    from ldm_jax.data import digit_scenes_builder

    if not digit_scenes_builder.is_built(digit_scenes_builder.builder(data_dir, size)):
        with _locked(Path(data_dir)):
            # A builder reads what is built when it is made: make it under the lock.
            digit_scenes_builder.prepare(digit_scenes_builder.builder(data_dir, size))
    return digit_scenes_builder.builder(data_dir, size)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time; the system releases the lock of a process that dies."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
