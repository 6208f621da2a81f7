"""Data sets of TensorFlow Datasets, prepared in array_record files and read without TensorFlow."""

import hashlib
import json
from bisect import bisect_right
from itertools import accumulate
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.core.reading import printable
from ldm_jax.core.stores import local_path
from ldm_jax.data.records import Records
from ldm_jax.data.sources import DataError, Split
from ldm_jax.data.stored_pictures import Stored, StoredSource, decoded_text, has_picture


class TFDSSource(StoredSource):
    """The examples of a split, or of a part of one, in the order of the files.

    What is prepared is read by what its own files say of it; no code of the data set is run, and
    nothing is downloaded.
    """

    def __init__(self, source: cfg.TFDS, sides: tuple[int, int], split: Split) -> None:
        import tensorflow_datasets as tfds

        super().__init__(source, sides, split)
        builder = _prepared(source)
        name = {"train": source.split, "validation": source.validation_split}.get(split, "")
        if not name:
            setting = "; name one with data.source.validation_split" * (split == "validation")
            raise DataError(f"no {split} split is named of {source.name}{setting}")
        files = _files(builder, name)
        self._features, self.class_names = _features(builder, source)
        self._decoders = {source.image: tfds.decode.SkipDecoding()}
        self._names, self._split = source, name
        remedy = f"prepare {source.name} anew: delete {builder.data_path} and {_how(source)}"
        counts = [one.examples_in_shard for one in files]
        self._records = Records([str(one.filename) for one in files], remedy, counts)
        self._ends = [*accumulate(one.take for one in files)]
        # Of each file the first record that is shown, among those of all files.
        before = [0, *accumulate(counts)][:-1]
        self._first = [start + one.skip for start, one in zip(before, files, strict=True)]
        if not len(self):
            raise DataError(f"the split {name} of {source.name} has no examples")
        self.has_captions = bool(source.caption)
        told = [name, counts, self._first, self._ends, source.image, source.caption, source.label]
        digest = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
        self.fingerprint = f"{builder.info.full_name}, {digest}"
        self.found = (
            f"{len(self)} images of {builder.info.full_name} ({name}, in "
            f"{printable(source.path)}), {'captions' if source.caption else 'no captions'}, "
            f"{len(self.class_names) or 'no'} classes"
        )

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def stored(self, index: int) -> Stored:
        """As `Storing.stored`."""
        index = range(len(self))[index]
        file = bisect_right(self._ends, index)
        row = self._first[file] + index - (self._ends[file - 1] if file else 0)
        record, where, names = self._records[row], self._records.named(row), self._names
        found = self._features.deserialize_example_np(record, decoders=self._decoders)
        caption = ""
        if names.caption:
            caption = decoded_text(where, f"its {names.caption}", bytes(found[names.caption]))
        label = int(found[names.label]) if self.class_names else 0
        # A number below zero is how TFDS says that a label is not known.
        if label < 0:
            raise DataError(f"{where} has no {names.label}; use a split that has labels")
        picture = has_picture(where, bytes(found[names.image]))
        return Stored(picture, caption.strip(), label, f"{self._split}/{index}")


def _prepared(source: cfg.TFDS) -> Any:
    """The builder of what lies in the folder.

    Raises:
        DataError: it is not there, or in another format.
    """
    import tensorflow_datasets as tfds

    if not source.path or not source.name:
        missing = "path" if not source.path else "name"
        raise DataError(f"data.source.{missing} is missing: name the data set and its data_dir")
    local_path(source.path, "data sets of TFDS")
    try:
        builder = tfds.core.read_only_builder.builder_from_files(source.name, data_dir=source.path)
    except (tfds.core.DatasetNotFoundError, ValueError, OSError, AssertionError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{source.name} is not prepared in {source.path} ({first[:200]}); nothing is "
            f"downloaded here: {_how(source)}"
        ) from error
    kind = builder.info.file_format
    if kind is None or kind.value != "array_record":
        raise DataError(
            f"{builder.data_path} has files of the format {kind and kind.value}, which cannot be "
            f"read in any order; {_how(source)}"
        )
    return builder


def _how(source: cfg.TFDS) -> str:
    return (
        "prepare it with tfds.builder("
        f"{source.name!r}, data_dir={source.path!r}, file_format='array_record')"
        ".download_and_prepare()"
    )


def _files(builder: Any, name: str) -> list[Any]:
    """What TFDS says of each file of a split, or of a part such as train[:90%]."""
    try:
        return [*builder.info.splits[name].file_instructions]
    except (KeyError, ValueError, AssertionError) as error:
        raise DataError(
            f"{builder.info.full_name} has no split {name!r}; it has "
            f"{', '.join(builder.info.splits)}, and parts of these, such as train[:90%]"
        ) from error


def _features(builder: Any, source: cfg.TFDS) -> tuple[Any, tuple[str, ...]]:
    """The features that are read, and the names of classes.

    Raises:
        DataError: one is not there, or of another type.
    """
    import tensorflow_datasets as tfds

    features, chosen = builder.info.features, {}
    for setting, kind, what in (
        ("image", tfds.features.Image, "a picture"),
        ("caption", tfds.features.Text, "a text"),
        ("label", tfds.features.ClassLabel, "a class"),
    ):
        name = getattr(source, setting)
        if name and not (name in features and isinstance(features[name], kind)):
            fits = [other for other in features if isinstance(features[other], kind)]
            raise DataError(
                f"data.source.{setting} is {name!r}, which is not {what} in "
                f"{builder.info.full_name}; {', '.join(fits) or 'no feature'} would be"
            )
        if name:
            chosen[name] = features[name]
    names = tuple(chosen[source.label].names) if source.label else ()
    return tfds.features.FeaturesDict(chosen), names
