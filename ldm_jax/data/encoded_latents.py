"""Encoded data sets: what a first stage makes of every image, in array_record files.

    FOLDER/SPLIT/index.json                        how the split was made: an `Index`
    FOLDER/SPLIT/00003-of-00008.array_record       its examples, in the order of the source

Images in buckets have a folder `FOLDER/SPLIT/512x768` (height and width) of this kind for each.

A record is the array of the index's dtype and shape (little endian, C order), then those of what a
text encoder made of its caption, if there was one: `caption_states` and, where the encoder has one,
the vector `caption_pooled`; then a JSON object with `caption`, `label`, `name` and `size`, what
models may be told of the picture's size and crop. A shard appears complete or not at all.
"""

import hashlib
import json
import math
import typing
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np

from ldm_jax import config as cfg
from ldm_jax.config.checks import matches
from ldm_jax.core import tree
from ldm_jax.core.reading import FileFormatError, parse_json, read_json
from ldm_jax.core.stores import as_path, check_copies, is_stored, names_in, there
from ldm_jax.data import shard_plans
from ldm_jax.data.buckets import Bucket, told_buckets
from ldm_jax.data.records import Records, count
from ldm_jax.data.shard_plans import ShardPlan
from ldm_jax.data.sources import DataError, Example, Split
from ldm_jax.data.tokenizer import Tokenizer

INDEX = "index.json"
DTYPES = {
    "float32": np.dtype("<f4"), "bfloat16": np.dtype(ml_dtypes.bfloat16), "int32": np.dtype("<i4")
}  # fmt: skip

Kind = Literal["gaussian", "point", "codes"]
"""What is stored of an image: `gaussian`, mean and log-variance of its unscaled latents, one after
the other along the channels; `point`, unscaled latents before quantisation; `codes`, the numbers
of the codebook's vectors."""

_AFTER_LATENTS = ("decoder", "post_quant_conv")
"""Parts of an autoencoder that latents do not depend on."""


@dataclass(frozen=True)
class EncodedText:
    """What a text encoder made of the captions."""

    encoder: str
    """`text_encoder_hash` of what encoded them."""
    shape: tuple[int, int]
    """Tokens of a caption, and channels of the state of each."""
    pooled: int | None
    """Length of the vector of all of a caption; None where the encoder gives none."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays of one caption, by name, in order."""
        shapes: dict[str, tuple[int, ...]] = {"caption_states": self.shape}
        return shapes if self.pooled is None else shapes | {"caption_pooled": (self.pooled,)}


@dataclass(frozen=True, kw_only=True)
class Index(ShardPlan):
    """How one split was encoded, and what is needed to read it."""

    encoder: str
    """`encoder_hash` of what encoded them."""
    source: dict[str, Any]
    """The settings of the images' source as JSON, without where it lies."""
    fingerprint: str
    """Of the source of the images."""
    image_size: tuple[int, int]
    """Height and width of the images in pixels."""
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    """Of one image's array: (h, w, z), or (h, w) for codes."""
    latent_scale: float | None
    """What the first stage multiplies latents by, which is not done here; null: not yet known."""
    compute: str
    """What the encoder computed in."""
    class_names: tuple[str, ...]
    has_captions: bool
    versions: dict[str, str] = field(compare=False)
    text: EncodedText | None = None
    """None where captions are not encoded."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the arrays of one example, by name, in the order in which a record has them."""
        return {"encoded": self.shape} | ({} if self.text is None else self.text.shapes)

    @property
    def array_bytes(self) -> int:
        """Of one example's arrays."""
        values = sum(math.prod(shape) for shape in self.shapes.values())
        return DTYPES[self.dtype].itemsize * values

    def arrays(self, record: bytes) -> dict[str, np.ndarray]:
        """The arrays of one example, by name."""
        found, dtype, start = {}, DTYPES[self.dtype], 0
        for name, shape in self.shapes.items():
            count = math.prod(shape)
            found[name] = np.frombuffer(record, dtype, count, start).reshape(shape)
            start += count * dtype.itemsize
        return found

    def absent(self, folder: Path) -> list[int]:
        """The shards that are not there, by the names in the folder; none is opened."""
        found = {*names_in(folder)}
        return [n for n in range(self.shards) if self.path(folder, n).name not in found]

    def missing(self, folder: Path) -> list[int]:
        """The shards that are not yet written, or damaged: with other than their examples. Those in
        a store, which takes objects whole or not at all, are not opened."""
        absent = {*self.absent(folder)}
        return [n for n in range(self.shards) if n in absent or self._is_damaged(folder, n)]

    def _is_damaged(self, folder: Path, shard: int) -> bool:
        path = self.path(folder, shard)
        return not is_stored(path) and count(path) != len(self.rows(shard))


_HINTS = typing.get_type_hints(Index)


def is_encoded(source: cfg.EncodedLatents, split: Split) -> bool:
    """Whether a split was encoded, or was begun."""
    return bool(encoded_folders(as_path(source.path) / split))


def encoded_folders(folder: Path) -> list[Path]:
    """Where a split has an index: in its `folder`, or in that of each of its buckets; in their
    order."""
    if there(folder / INDEX):
        return [folder]
    found = [path for path in folder.glob("*x*") if there(path / INDEX)]
    return sorted(found, key=lambda path: read_index(path).image_size[::-1])


def bucket_folder(folder: Path, sides: tuple[int, int]) -> Path:
    """Where a bucket of the split in `folder` lies."""
    return folder / "{}x{}".format(*sides)


def read_index(folder: Path) -> Index | None:
    """The index of the split in `folder`, or None where there is none.

    Raises:
        DataError: the file is damaged, or of another version of this project.
    """
    path = folder / INDEX
    if not there(path):
        return None
    try:
        found = read_json(path)
        lists = {name: tuple(found[name]) for name in ("image_size", "shape", "class_names")}
        text = found.get("text")
        if text is not None:
            text = EncodedText(**{**text, "shape": tuple(text["shape"])})
        index = Index(**{**found, **lists, "text": text})
        wrong = [
            f.name for f in fields(Index) if not matches(getattr(index, f.name), _HINTS[f.name])
        ]
        if wrong or index.dtype not in DTYPES or min(index.examples, index.shard_size) < 1:
            raise ValueError(f"{', '.join(wrong) or 'a number'} is not what it should be")
        return index
    except (ValueError, KeyError, TypeError) as error:
        problem = error.args[1] if isinstance(error, FileFormatError) else error
        raise DataError(
            f"{path} is not a valid index of encoded images ({type(error).__name__}: {problem}); "
            "restore it, or encode the images again"
        ) from error


def encoder_hash(params: Mapping[str, Any]) -> str:
    """SHA-256 of an autoencoder's parameters, in float32, without those of its decoder.

    Two autoencoders with the same hash make the same latents of an image.
    """
    before = {name: part for name, part in params.items() if name not in _AFTER_LATENTS}
    return tree.fingerprint(before)


def text_encoder_hash(
    text: cfg.TextConditioner, params: Mapping[str, Any], tokenizer: Tokenizer
) -> str:
    """SHA-256 of a text encoder's form, parameters (as float32) and tokenizer.

    Two with the same hash make the same states of a caption.
    """
    parts = f"{text.encoder} {tree.fingerprint(params)} {tokenizer.fingerprint}"
    return hashlib.sha256(parts.encode()).hexdigest()


def begin(folder: Path, index: Index) -> None:
    """Makes the folder of a split, or checks that what is in it is of the same encoding.

    Raises:
        DataError: names the fields in which it is another one.
    """
    shard_plans.begin(folder / INDEX, read_index(folder), index, "images encoded")


def write_shard(folder: Path, index: Index, shard: int, examples: Iterable[Example]) -> None:
    """Writes one shard of examples with the index's arrays; nothing is left where that fails.

    Raises:
        OSError: names the file and the reason, such as a full disk.
    """
    records = (_record(index, one) for one in examples)
    shard_plans.write_shard(index.path(folder, shard), records)


_TOLD = ("caption", "label", "name")


def _record(index: Index, example: Example) -> bytes:
    told = {name: example[name] for name in _TOLD} | {"size": example["size"].tolist()}
    dtype = DTYPES[index.dtype]
    arrays = [np.ascontiguousarray(example[name], dtype).tobytes() for name in index.shapes]
    return b"".join([*arrays, json.dumps(told).encode()])


class LatentsSource:
    """The examples of one split as they were encoded, in the order of their images' source; of
    images in buckets, one bucket after the other."""

    def __init__(self, source: cfg.EncodedLatents, sides: tuple[int, int], split: Split):
        self.broken: dict[str, str] = {}
        self.has_images, self.box_classes, self.map_classes = False, None, None
        self.beside = frozenset[str]()
        self._opened_with = (source, sides, split)
        if not source.path:
            raise DataError("data.source.path is missing: name the folder of encoded images")
        self.folder = as_path(source.path) / split
        folders = encoded_folders(self.folder)
        if not folders:
            raise DataError(
                f"{source.path} has no encoded {split} images ({self.folder / INDEX} does not "
                "exist); encode them with python -m ldm_jax.cli.encode --first_stage=MODEL "
                "--out=FOLDER and name that, or train on images, without --latents"
            )
        remedy = (
            "copy it again, or delete it and encode it anew: the python -m ldm_jax.cli.encode "
            f"--out={source.path} that wrote it writes again what is missing"
        )
        self._parts = [_Part(folder, remedy) for folder in folders]
        self.index = index = self._parts[0].index
        for other in self._parts[1:]:
            _check_alike(self.folder, index, other.index)
        self._ends = list(accumulate(len(part) for part in self._parts))
        self.buckets = None
        if folders != [self.folder]:
            starts = [0, *self._ends]
            self.buckets = tuple(
                Bucket(part.index.image_size, range(start, start + len(part)))
                for part, start in zip(self._parts, starts, strict=False)
            )
        _check_sides(source, index, sides, self.buckets)
        self.class_names, self.has_captions = index.class_names, index.has_captions
        self.fingerprint = (
            f"{index.fingerprint}, encoded by {index.encoder[:16]} as {index.kind} {index.dtype}"
        )
        captions = "captions" if self.has_captions else "no captions"
        if index.text is not None:
            self.fingerprint += f", captions by {index.text.encoder[:16]}"
            captions = "encoded captions"
        self.found = (
            f"{len(self)} encoded images of {split} in {source.path} ({index.kind}, "
            f"{index.dtype}), {captions}, {len(self.class_names) or 'no'} classes"
        )
        if self.buckets is not None:
            self.found += f"; in {told_buckets(self.buckets)}"

    def __reduce__(self) -> tuple[Any, ...]:
        # A loader process opens the files anew.
        return LatentsSource, self._opened_with

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Example:
        row = range(len(self))[int(index)]
        part = bisect_right(self._ends, row)
        return self._parts[part].example(row - self._ends[part] + len(self._parts[part]))

    def captions(self) -> Iterator[str]:
        """All captions, in order; nothing where there are none."""
        return self._all("caption") if self.has_captions else iter(())

    def labels(self) -> Iterator[int]:
        """As `Source.labels`."""
        return self._all("label") if self.class_names else iter(())

    def names(self) -> Iterator[str]:
        """What the images' source calls them, in order; all files are read for it."""
        return self._all("name")

    def _all(self, name: str) -> Iterator[Any]:
        return (told[name] for part in self._parts for told in part.told())


class _Part:
    """The examples in one folder with an index."""

    def __init__(self, folder: Path, remedy: str) -> None:
        index = read_index(folder)
        absent = index.absent(folder)
        if absent:
            raise DataError(
                f"{folder} is incomplete: {len(absent)} of {index.shards} shards are "
                f"missing, {index.path(folder, absent[0]).name} first; run the "
                "command that began it again to continue"
            )
        check_copies(folder, "or train on the images")
        self.index, self._folder = index, folder
        paths = [index.path(folder, shard) for shard in range(index.shards)]
        counts = [len(index.rows(shard)) for shard in range(index.shards)]
        self._records = Records(paths, remedy, counts)

    def __len__(self) -> int:
        return self.index.examples

    def example(self, row: int) -> Example:
        record = self._records[row]
        told = self._told(record)
        named = {name: told[name] for name in _TOLD}
        size = np.array(told["size"], np.int32)
        return {**self.index.arrays(record), **named, "size": size}

    def told(self) -> Iterator[dict[str, Any]]:
        """What each record says beside its arrays."""
        return map(self._told, self._records)

    def _told(self, record: bytes) -> dict[str, Any]:
        told = parse_json(self._folder, "a record", record[self.index.array_bytes :])
        if not {*_TOLD, "size"} <= told.keys() or len(record) < self.index.array_bytes:
            raise DataError(
                f"{self._folder} has records that do not match its {INDEX}; encode the images again"
            )
        return told


_OF_BUCKET = ("image_size", "shape", "examples", "versions")
"""What buckets of one encoding may differ in."""


def _check_alike(folder: Path, one: Index, other: Index) -> None:
    same = {name: getattr(one, name) for name in _OF_BUCKET}
    if replace(other, **same) != one:
        raise DataError(
            f"{folder} has buckets of different encodings; encode the images again into an empty "
            "folder"
        )


def _check_sides(
    source: cfg.EncodedLatents,
    index: Index,
    sides: tuple[int, int],
    buckets: tuple[Bucket, ...] | None,
) -> None:
    asked, encoded = ("{} x {}".format(*pair) for pair in (sides, index.image_size))
    if buckets is None and sides != index.image_size:
        raise DataError(
            f"data.image_size is {asked}, but {source.path} was encoded from images of "
            f"{encoded} pixels (height x width)"
        )
    if buckets is not None:
        settings = cfg.from_json(json.dumps(index.source["buckets"]))
        if not {one.sides for one in buckets} <= {*settings.all_sizes(sides)}:
            raise DataError(
                f"data.image_size is {asked}, but {source.path} was encoded in buckets of another "
                "size"
            )
