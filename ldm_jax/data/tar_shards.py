"""Tar files in WebDataset's layout, and an index with which their members are read in any order.

An example is a run of members whose names are the same up to the first dot of the file's name: one
picture, and KEY.txt, KEY.json, KEY.cls where there are such. The index of a tar file is an array of
`MEMBERS`, in a .npy file that is mapped into memory.
"""

import hashlib
import io
import os
import re
import tarfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from ldm_jax.core.files import write_atomically
from ldm_jax.core.reading import FileFormatError, open_file
from ldm_jax.core.stores import as_path, is_stored, local_copy
from ldm_jax.data.records import opened
from ldm_jax.data.shard_lists import Shard
from ldm_jax.data.sources import DataError
from ldm_jax.images.picture_files import SUFFIXES

KINDS = ("picture", "txt", "json", "cls")
"""Of members that are read."""
MEMBERS = np.dtype([entry for kind in KINDS for entry in ((kind, "<u8"), (f"{kind}_bytes", "<u4"))])
"""Of each kind where the member's content begins in the tar file, 0: there is none, and how long it
is."""
_BLOCK = 512
_PLACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True)
class TarShard(Shard):
    """A tar file, as it was when it was indexed."""

    has: tuple[str, ...]
    """Which of `KINDS` all of its examples have."""
    classes: int
    """One more than the largest number in a .cls; 0 without any."""


def tar_files(path: str, setting: str = "data.source.path") -> tuple[Path, ...]:
    """The tar files that a setting names: one, all of a folder, or all of a range.

    Raises:
        DataError: it names none, or one twice.
    """
    if not path:
        raise DataError(f"{setting} is missing: name tar files, such as train-{{0000..0099}}.tar")
    place = as_path(path)
    if place.is_dir():
        found = sorted(one for one in place.iterdir() if one.suffix == ".tar")
        if not found:
            raise DataError(f"{setting}={path} has no .tar files")
        return tuple(found)
    ranges = [
        [f"{n:0{len(first)}d}" for n in range(int(first), int(last) + 1)]
        for first, last in _PLACES.findall(place.name)
    ]
    pattern = _PLACES.sub("{}", place.name)
    try:
        names = [pattern.format(*numbers) for numbers in product(*ranges)]
    except (ValueError, IndexError, KeyError) as error:
        raise DataError(
            f"{setting}={path}: of braces, only ranges such as {{0000..0099}} are known"
        ) from error
    if not names or len({*names}) < len(names):
        raise DataError(f"{setting}={path} names {'a file twice' if names else 'no file'}")
    return tuple(place.parent / name for name in names)


# ----------------------------------------------------------------------------------- the index


def index_tar(path: Path, folder: Path) -> TarShard:
    """Reads a tar file once and writes the index of its members into `folder`.

    Raises:
        DataError, FileFormatError: it is cut short or no tar file, or an example has no picture, or
            two, or a member twice; names it.
    """
    rows, classes = [], 0
    with open_file(path) as file:
        hashed = _Hashed(file)
        try:
            with tarfile.open(fileobj=hashed, mode="r|", bufsize=2**20) as tar:
                for row, label in _examples(path, tar):
                    rows.append(row)
                    classes = max(classes, label + 1)
                end = tar.offset
        except tarfile.TarError as error:
            raise FileFormatError(path, f"is cut short, or no tar file: {error}") from error
        while hashed.read(2**20):
            pass
        size = file.tell()
    members = np.array(rows, MEMBERS)
    # Archives end with blocks of zeros.
    if size < end + _BLOCK:
        raise FileFormatError(path, "is cut short: it has no end of a tar file; copy it again")
    content = io.BytesIO()
    np.save(content, members)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{path.name}.npy", content.getvalue())
    has = tuple(kind for kind in KINDS if (members[kind] > 0).all())
    return TarShard(path.name, len(members), size, hashed.digest.hexdigest(), has, classes)


class _Hashed:
    """A file whose bytes are hashed as they are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.digest = file, hashlib.sha256()

    def read(self, size: int) -> bytes:
        """The next bytes, at most so many."""
        data = self._file.read(size)
        self.digest.update(data)
        return data


def _examples(path: Path, tar: tarfile.TarFile) -> Iterator[tuple[tuple[int, ...], int]]:
    """The `MEMBERS` of each example, and its number in a .cls, -1 without one."""
    files = (member for member in tar if member.isreg() and not _is_about_all(member.name))
    for key, group in groupby(files, lambda member: _split(member.name)[0]):
        found: dict[str, tuple[int, int]] = {}
        label = -1
        for member in group:
            suffix = _split(member.name)[1]
            kind = "picture" if f".{suffix}" in SUFFIXES else suffix
            if kind not in KINDS:
                continue
            if kind in found:
                what = "more than one picture" if kind == "picture" else f"{kind} twice"
                raise DataError(f"{path}: {key} has {what}; give each example a name of its own")
            found[kind] = member.offset_data, member.size
            if kind == "cls":
                label = class_number(f"{path}: {member.name}", tar.extractfile(member).read())
        if not found.get("picture", (0, 0))[1]:
            raise DataError(f"{path}: {key} has no picture ({', '.join(SUFFIXES)})")
        yield tuple(number for kind in KINDS for number in found.get(kind, (0, 0))), label


def _is_about_all(name: str) -> bool:
    """Whether a member is none of an example, as WebDataset has it."""
    base = PurePosixPath(name).name
    return base.startswith("__") and base.endswith("__")


def _split(name: str) -> tuple[str, str]:
    """KEY and suffix of a member."""
    folder, slash, base = name.rpartition("/")
    key, _, suffix = base.partition(".")
    return f"{folder}{slash}{key}", suffix.lower()


def class_number(where: str, text: bytes) -> int:
    """The class that a .cls names. Raises DataError where it is no number."""
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**31:
        raise DataError(f"{where} holds {text[:40]!r}, which is not the number of a class")
    return number


# ------------------------------------------------------------------------------------- reading


class TarMembers:
    """The members of examples of several tar files, one file's after the other's.

    A file is opened when it is first read: see `records.opened`.
    """

    def __init__(self, shards: list[tuple[Path, TarShard]], folder: Path, remedy: str) -> None:
        """Of tar files with their entries in the index in `folder`."""
        self._shards, self._folder, self._remedy = shards, folder, remedy

    def read(self, shard: int, row: int, kind: str) -> tuple[str, bytes]:
        """The name and content of a member of an example; its content is empty without one.

        Raises:
            DataError: the file is missing, or not the one that was indexed.
        """
        tar = opened(self, shard)
        at, size = (int(tar.members[row][name]) for name in (kind, f"{kind}_bytes"))
        if not at:
            return "", b""
        data = tar.part(at - _BLOCK, _BLOCK + size)
        try:
            header = tarfile.TarInfo.frombuf(data[:_BLOCK], "utf-8", "backslashreplace")
        except tarfile.HeaderError as error:
            raise self._other(shard, f"has no member at byte {at}") from error
        if header.size != size or len(data) < _BLOCK + size:
            raise self._other(shard, f"has another member at byte {at}")
        return header.name, data[_BLOCK:]

    def path(self, shard: int) -> Path:
        """Of a tar file."""
        return self._shards[shard][0]

    def open_file(self, shard: int) -> "_Tar":
        """A tar file with its index.

        Raises:
            DataError: it is missing, or not the one that was indexed.
        """
        path, noted = self._shards[shard]
        try:
            file, index = open_file(path), self._folder / f"{path.name}.npy"
        except FileFormatError as error:
            raise DataError(f"{error}; {self._remedy}") from error
        with file:
            size = file.seek(0, os.SEEK_END)
            if size != noted.bytes:
                raise self._other(shard, f"has {size} bytes instead of {noted.bytes}")
            try:
                members = np.load(local_copy(index), mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise DataError(f"{index} is missing or damaged; {self._remedy}") from error
            if members.dtype != MEMBERS or members.shape != (noted.examples,):
                raise DataError(f"{index} is of another version of {path}; {self._remedy}")
            if is_stored(path):
                return _StoredTar(path, members)
            return _Tar(os.dup(file.fileno()), members)

    def _other(self, shard: int, what: str) -> DataError:
        return DataError(
            f"{self.path(shard)} {what}: it is not the file that was indexed; {self._remedy}"
        )


class _Tar:
    """An open tar file; closed when nobody reads it any more."""

    def __init__(self, descriptor: int, members: Any) -> None:
        self.descriptor, self.members = descriptor, members
        weakref.finalize(self, os.close, descriptor)

    def part(self, start: int, size: int) -> bytes:
        """So many bytes of it."""
        return os.pread(self.descriptor, size, start)


class _StoredTar:
    """A tar file in a store, of which only members are fetched."""

    def __init__(self, path: Path, members: Any) -> None:
        self._path, self.members = path, members

    def part(self, start: int, size: int) -> bytes:
        """So many bytes of it."""
        return self._path.read_part(start, size)
