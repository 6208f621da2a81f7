"""Pictures in shards of records: how they are written.

    FOLDER/SPLIT/plan.json                         of what, and how it is divided: a `PicturePlan`
    FOLDER/SPLIT/00003-of-00008.array_record       examples, in the order of the source
    FOLDER/SPLIT/index.json                        the list of shards, once all are there

A record is the length of a JSON object (4 bytes, little endian), that object with `caption`,
`label`, `name` and `size` (height and width of the upright picture), and the picture's file.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.core.files import digests
from ldm_jax.core.reading import FileFormatError, parse_json, read_json
from ldm_jax.core.stores import there
from ldm_jax.data import shard_lists
from ldm_jax.data.shard_lists import Shard
from ldm_jax.data.shard_plans import ShardPlan, begin, write_shard
from ldm_jax.data.sources import DataError, Source
from ldm_jax.data.stored_pictures import Stored, Storing, decoded_text, has_picture
from ldm_jax.data.transforms import resized
from ldm_jax.images.picture_files import decode_picture, describe_picture

PLAN = "plan.json"
QUALITY = 95
"""Of the JPEG files that pictures are made into which were JPEG and become smaller."""
_AHEAD = 256
"""Pictures that are read side by side."""
_LENGTH = 4


@dataclass(frozen=True)
class Common:
    """What all shards of a split have in common."""

    class_names: tuple[str, ...]
    has_captions: bool


@dataclass(frozen=True, kw_only=True)
class PicturePlan(ShardPlan):
    """How the pictures of one split are stored."""

    source: dict[str, Any]
    """The settings of the source as JSON, without where it lies."""
    fingerprint: str
    """Of the source."""
    shorter_side: int | None
    """What larger pictures are made to have, in pixels; null: all are as they were."""
    class_names: tuple[str, ...]
    has_captions: bool
    versions: dict[str, str] = field(compare=False)


def begin_pictures(folder: Path, plan: PicturePlan) -> list[int]:
    """Begins to write `plan` into `folder`, or goes on; returns the shards that are missing.

    Raises:
        DataError: the folder holds what another plan made.
    """
    path, found = folder / PLAN, None
    if there(path):
        remedy = f"delete {folder} and write it anew"
        found = shard_lists.record_of(PicturePlan, path, read_json(path), remedy)
    begin(path, found, plan, "pictures written")
    done = shard_lists.noted(folder, _names(folder, plan), Shard, folder)
    return [n for n, name in enumerate(_names(folder, plan)) if name not in done]


def write_pictures(
    source: Source,
    folder: Path,
    plan: PicturePlan,
    shard: int,
    *,
    skip: bool,
    tell: Callable[[int], None],
) -> int:
    """Writes one shard of `plan`; returns how many examples it has.

    Args:
        skip: leave pictures out that cannot be read, instead of stopping.
        tell: is given how many examples are done now.

    Raises:
        DataError: a picture cannot be read.
        OSError: names the file that cannot be written.
    """
    path = plan.path(folder, shard)
    made = _Counted(_records(source, plan.rows(shard), plan.shorter_side, skip, tell))
    write_shard(path, made)
    digest = digests(folder, [path.name])[path.name]
    shard_lists.note_shard(folder, Shard(path.name, made.count, **digest))
    return made.count


def finish_pictures(folder: Path, plan: PicturePlan) -> int:
    """Writes the list of shards if all are there; returns how many are missing."""
    names = _names(folder, plan)
    done = shard_lists.noted(folder, names, Shard, folder)
    if len(done) == len(names):
        common = Common(plan.class_names, plan.has_captions)
        shard_lists.write_list(folder, [done[name] for name in names], common)
    return len(names) - len(done)


def _names(folder: Path, plan: PicturePlan) -> list[str]:
    return [plan.path(folder, shard).name for shard in range(plan.shards)]


class _Counted(Iterator[bytes]):
    """Counts what is taken from an iterator."""

    def __init__(self, items: Iterator[bytes]) -> None:
        self._items, self.count = items, 0

    def __next__(self) -> bytes:
        item = next(self._items)
        self.count += 1
        return item


def _records(
    source: Source, rows: Sequence[int], side: int | None, skip: bool, tell: Callable[[int], None]
) -> Iterator[bytes]:
    """The records of some examples, made in threads."""
    rest = iter(rows)
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        while chunk := list(islice(rest, _AHEAD)):
            made = threads.map(partial(_record, source, side, skip), chunk)
            yield from (one for one in made if one is not None)
            tell(len(chunk))


def _record(source: Source, side: int | None, skip: bool, row: int) -> bytes | None:
    try:
        return record(stored_of(source, row), side)
    except FileFormatError as error:
        if skip:
            return None
        raise DataError(
            f"{error}; repair or remove it, or leave such images out with "
            "--data.source.on_broken=skip"
        ) from error


def stored_of(source: Source, row: int) -> Stored:
    """An example as its source stores it; its picture as PNG where that is no file."""
    if isinstance(source, Storing):
        return source.stored(row)
    example, written = source[row], io.BytesIO()
    Image.fromarray(example["image"]).save(written, "PNG")
    return Stored(written.getvalue(), example["caption"], example["label"], example["name"])


def record(one: Stored, side: int | None = None) -> bytes:
    """An example as a record, with its picture as it is, or made so small that its shorter side is
    `side` (JPEG stays JPEG, all else becomes PNG). The picture is decoded, to know that it can be.

    Raises:
        FileFormatError: it cannot.
    """
    kind, size = describe_picture(one.name, one.picture)
    picture = one.picture
    if side is None or min(size) <= side:
        decode_picture(one.name, picture, at_least=1)
    else:
        pixels = decode_picture(one.name, picture, at_least=2 * side)
        size = resized(size, (side, side), "shorter_side")
        small = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.LANCZOS)
        written = io.BytesIO()
        if kind == "JPEG":
            small.save(written, "JPEG", quality=QUALITY, subsampling=0)
        else:
            small.save(written, "PNG")
        picture = written.getvalue()
    told = {"caption": one.caption, "label": one.label, "name": one.name, "size": size}
    head = json.dumps(told).encode()
    return len(head).to_bytes(_LENGTH, "little") + head + picture


def read_record(where: str, data: bytes) -> Stored:
    """The example of a record, which `where` says the place of.

    Raises:
        DataError: it is no such record, or one without a picture.
    """
    end = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
    if end > len(data):
        raise DataError(f"{where} is no record of a picture; write its shard again")
    told = parse_json(where, "its description", decoded_text(where, "its description",
                                                             data[_LENGTH:end]))  # fmt: skip
    match told:
        case {"caption": str(caption), "label": int(label), "name": str(name)}:
            return Stored(has_picture(where, data[end:]), caption, label, name)
    raise DataError(f"{where} has no caption, label and name; write its shard again")


def plan_of(
    source: Source, settings: cfg.Source, side: int | None, shard_size: int, **versions: str
) -> PicturePlan:
    """How all examples of a source are stored."""
    told = json.loads(cfg.to_json(settings))
    where = ("path", "data_dir", "validation_path", "index", "on_broken")
    return PicturePlan(
        examples=len(source), shard_size=shard_size, shorter_side=side,
        source={name: value for name, value in told.items() if name not in where},
        fingerprint=source.fingerprint, class_names=source.class_names,
        has_captions=source.has_captions, versions=versions,
    )  # fmt: skip
