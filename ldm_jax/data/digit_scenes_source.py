"""The embedded data set as a source of training examples; it is built where it is absent."""

import fcntl
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.data.digit_scenes import COLOURED_DIGITS, DIGITS, coloured_classes
from ldm_jax.data.records import Records
from ldm_jax.data.sources import DataError, Example, Split

FEATURES = ("image", "caption", "label", "boxes", "classes", "class_map")
# Splits whose decoded pixels take less than this many bytes stay in memory after the first use.
_KEEP_BELOW = 512 * 2**20


class DigitScenesSource:
    """DigitScenes of one split with `min_digits` to `max_digits` digits, read from array_record
    files.

    An example is decoded when it is first used (about 0.1 ms) and then kept, as long as the split
    takes less than 512 MiB.
    """

    has_captions = has_images = True
    map_classes = 1 + len(DIGITS)
    """The background, and each digit."""
    beside = frozenset[str]()

    def __init__(self, source: cfg.DigitScenes, image_size: int, split: Split):
        import tensorflow_datasets as tfds

        self.broken: dict[str, str] = {}
        self.box_classes = DIGITS if source.box_classes == "digits" else COLOURED_DIGITS
        self._opened_with = (source, image_size, split)
        builder = _built_digit_scenes(source.data_dir, image_size)
        features = builder.info.features
        remedy = f"delete {builder.data_path}, which the next run builds anew"
        if split not in builder.info.splits:
            raise DataError(
                f"{builder.data_path}/dataset_info.json is missing or has no {split}; {remedy}"
            )
        self._records = Records([*map(str, builder.info.splits[split].filepaths)], remedy)
        self._features = tfds.features.FeaturesDict({name: features[name] for name in FEATURES})
        self._decoders = {name: tfds.decode.SkipDecoding() for name in ("image", "class_map")}
        self.class_names = tuple(features["label"].names)
        self.fingerprint = f"{builder.info.full_name}, at most {source.max_digits} digits"
        if source.min_digits > 1:
            self.fingerprint += f", at least {source.min_digits}"
        if source.box_classes != "digits":
            self.fingerprint += f", {source.box_classes}"
        self._rows = np.arange(len(self._records))
        least, most = source.min_digits, source.max_digits
        if (least, most) != (1, 3):
            counts = tfds.features.FeaturesDict({"count": features["count"]})
            found = np.array([counts.deserialize_example_np(r)["count"] for r in self._records])
            self._rows = np.flatnonzero((least <= found) & (found <= most))
        self.found = (
            f"{len(self._rows)} images of DigitScenes ({split}, {image_size} pixels, in "
            f"{source.data_dir}), captions, {len(self.class_names)} classes"
        )
        self._keep = len(self._rows) * image_size**2 * 4 < _KEEP_BELOW
        self._kept: dict[int, Example] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader process opens the files anew instead of receiving the kept images.
        return DigitScenesSource, self._opened_with

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Example:
        index = range(len(self))[index]
        if index in self._kept:
            return {**self._kept[index]}
        record = self._records[int(self._rows[index])]
        found = self._features.deserialize_example_np(record, decoders=self._decoders)
        pixels = {name: np.asarray(Image.open(io.BytesIO(found[name]))) for name in self._decoders}
        example: Example = {
            **pixels, "boxes": found["boxes"], "classes": found["classes"],
            "caption": found["caption"].decode(), "label": int(found["label"]),
            "name": f"{self._opened_with[2]}/{int(self._rows[index])}",
        }  # fmt: skip
        if self.box_classes is COLOURED_DIGITS:
            example["classes"] = coloured_classes(example["caption"])
        if self._keep:
            self._kept[index] = example
        return {**example}

    def captions(self) -> Iterator[str]:
        """All captions, in order."""
        return (self[index]["caption"] for index in range(len(self)))

    def labels(self) -> Iterator[int]:
        """As `Source.labels`."""
        return (self[index]["label"] for index in range(len(self)))

    def names(self) -> Iterator[str]:
        """Nothing: the examples are no files."""
        return iter(())


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
