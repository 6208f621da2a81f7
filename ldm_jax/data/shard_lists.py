"""Lists of shards, files of many examples: what each holds, so that none need be opened to know.

    FOLDER/index.json          the list, and what all shards have in common
    FOLDER/notes/SHARD.json    what its writer noted of one shard, the list's entry

Each shard is noted when it is complete, by whichever process made it; the list is written once all
are. A shard counts as there while it has the size that was noted.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from ldm_jax.config.checks import field_hints, matches
from ldm_jax.core.files import changes, write_atomically
from ldm_jax.core.reading import FileFormatError, read_json
from ldm_jax.core.stores import names_in
from ldm_jax.data.sources import DataError

INDEX = "index.json"
NOTES = "notes"

Kind = TypeVar("Kind")


@dataclass(frozen=True)
class Shard:
    """A file of examples, as it was when it was noted."""

    file: str
    """Its name."""
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class NothingInCommon:
    """What is noted of all shards together where that is nothing."""


def record_of(kind: type[Kind], path: Path, found: Any, remedy: str) -> Kind:
    """The dataclass `kind` from the JSON object `found`, which `path` holds.

    Raises:
        DataError: a field is missing, unknown or of another type; names it, and `remedy`.
    """
    hints = field_hints(kind)
    members = found if isinstance(found, dict) else {}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in members.items()}
    wrong = sorted(hints.keys() ^ values.keys())
    wrong += [
        name for name, hint in hints.items()
        if name in values and type(values[name]) is not hint and not matches(values[name], hint)
    ]  # fmt: skip
    if wrong:
        raise DataError(
            f"{path} is damaged ({', '.join(wrong)} is not what it should be); {remedy}"
        )
    return kind(**values)


def read_list(
    folder: Path, shard: type[Kind], common: type[Any], remedy: str
) -> tuple[list[Kind], Any]:
    """The shards that `folder` lists, and what they have in common.

    Raises:
        DataError: there is no list, it is damaged, or it has a shard twice.
    """
    path = folder / INDEX
    try:
        found = read_json(path)
    except FileFormatError as error:
        raise DataError(f"{error}; {remedy}") from error
    entries = found.pop("shards", None)
    if not isinstance(entries, list):
        raise DataError(f"{path} is damaged (it has no list of shards); {remedy}")
    shards = [record_of(shard, path, entry, remedy) for entry in entries]
    seen: set[str] = set()
    for one in shards:
        if one.file in seen:
            raise DataError(f"{path} lists {one.file} twice; {remedy}")
        if one.examples < 0 or os.path.basename(one.file) != one.file:
            raise DataError(f"{path} is damaged (its entry {one.file!r}); {remedy}")
        seen.add(one.file)
    return shards, record_of(common, path, found, remedy)


def write_list(folder: Path, shards: Sequence[Shard], common: Any) -> None:
    """Writes what `read_list` reads, a line for each shard."""
    entries = ",\n".join(f"  {json.dumps(asdict(one))}" for one in shards)
    about = [f" {json.dumps(name)}: {json.dumps(v)}," for name, v in asdict(common).items()]
    text = "\n".join(["{", *about, ' "shards": [', entries, " ]", "}", ""])
    write_atomically(folder / INDEX, text.encode())


def note_shard(folder: Path, shard: Shard) -> None:
    """Notes a shard that is complete."""
    path = folder / NOTES / f"{shard.file}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(asdict(shard)) + "\n").encode())


def noted(folder: Path, names: Iterable[str], kind: type[Kind], at: Path) -> dict[str, Kind]:
    """By name, what was noted of those shards of `names` that lie in `at` and have the size noted.

    Raises:
        DataError: a note is damaged.
    """
    found = {}
    for name in names:
        path = folder / NOTES / f"{name}.json"
        if path.is_file():
            one = record_of(kind, path, read_json(path), f"delete {path}")
            file = at / name
            if file.is_file() and file.stat().st_size == one.bytes:
                found[name] = one
    return found


def fingerprint(shards: Iterable[Shard], *more: Any) -> str:
    """What changes with any byte of the shards, or with what else there is."""
    digest = hashlib.sha256(json.dumps(more).encode())
    for one in shards:
        digest.update(f"{one.examples} {one.sha256}\n".encode())
    return digest.hexdigest()[:16]


def damaged_shards(folder: Path, shards: Sequence[Shard], tell: Callable[[int], None]) -> list[str]:
    """What is wrong with the shards in `folder`, in words, by their checksums; `tell` is given the
    number of bytes of each that is done."""

    def look(one: Shard) -> list[str]:
        found = changes(folder, {one.file: {"bytes": one.bytes, "sha256": one.sha256}}, INDEX)
        tell(one.bytes)
        return found

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return [problem for found in threads.map(look, shards) for problem in found]


def check_present(folder: Path, shards: Sequence[Shard], suffix: str, remedy: str) -> None:
    """Compares the names in `folder` with the list; no shard is opened.

    Raises:
        DataError: one is missing, or there is one with the number of another.
    """
    there = {name for name in names_in(folder) if name.endswith(suffix)}
    listed = {one.file for one in shards}
    missing, unlisted = sorted(listed - there), sorted(there - listed)
    if missing:
        raise DataError(
            f"{folder} lacks {len(missing)} of {len(listed)} shards, {missing[0]} first; {remedy}"
        )
    if unlisted:
        raise DataError(
            f"{folder} has {unlisted[0]}, which its {INDEX} does not list: a second shard of that "
            "number, or of another data set; move it away"
        )
