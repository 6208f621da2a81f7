"""Tensor files of torch before 1.6, without a zip: pickles, then the bytes of each storage.

LPIPS' heads and torchvision's older networks are such files. A pickle each: the magic number, the
version, the machine's properties, the object, and the keys of its storages in their order; then for
each storage the number of its elements (int64) and these.
"""

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.core.reading import FileFormatError, shown
from ldm_jax.formats import pickles
from ldm_jax.formats.pickles import Vocabulary
from ldm_jax.formats.torch_tensors import FUNCTIONS, Tensors, described_storage, vocabulary

MAGIC = 0x1950A86A20F9469CFC6C
VERSION = 1001

Sizes = dict[str, tuple[np.dtype | None, int]]
"""The dtype of each storage, None where it is of bytes, and how many it has."""


def is_old_format(start: bytes) -> bool:
    """Whether a file that begins like this is a bare pickle or a tar, as torch before 1.6 wrote."""
    return start[:1] == b"\x80" or start[257:262] == b"ustar"


def read(path: Path, data: mmap.mmap) -> Any:
    """As `torch_file.read_torch`, of a mapped file of this kind; torch 0.1's tars are refused."""
    if data[:1] != b"\x80":
        raise FileFormatError(
            path,
            "is a tar, as torch before 0.2 wrote, which is not read; if you trust who made it, for "
            "loading runs what it asks for, open it with torch and save it again: "
            "torch.save(torch.load(old, 'cpu', weights_only=False), new)",
        )
    magic, at = _next(path, data, 0, _plain(path))
    if magic != MAGIC:
        raise FileFormatError(
            path,
            "is a bare pickle, not a file that torch.save wrote; save its tensors with torch.save "
            "or as safetensors",
        )
    version, at = _next(path, data, at, _plain(path))
    machine, at = _next(path, data, at, _plain(path))
    if version != VERSION or type(machine) is not dict:
        raise FileFormatError(path, "is in an old format of torch.save of another version")
    if machine.get("little_endian") is not True:
        raise FileFormatError(path, "its byteorder is not little; save it on another machine")
    sizes: Sizes = {}
    _, after = _next(path, data, at, _outline(path, sizes))
    keys, start = _next(path, data, after, _plain(path))
    tensors = Tensors(path, data, _records(path, data, start, keys, sizes))
    words = vocabulary(
        tensors.functions(), lambda identity: tensors.storage(_typed(path, identity))
    )
    return pickles.unpickle(path, data[at:after], words)


def _next(path: Path, data: mmap.mmap, at: int, words: Vocabulary) -> tuple[Any, int]:
    """The value of the pickle that begins at `at`, and where it ends."""
    value, length = pickles.unpickle_first(path, data[at : at + pickles.MAX_BYTES], words)
    return value, at + length


def _plain(path: Path) -> Vocabulary:
    """Of a pickle of numbers, text and containers."""

    def refuse(identity: Any) -> Any:
        raise FileFormatError(path, "its pickle is damaged: a storage where there can be none")

    return Vocabulary({}, (), (), lambda name: False, refuse)


def _outline(path: Path, sizes: Sizes) -> Vocabulary:
    """Of the object's pickle read for the sizes of its storages alone: they say where each lies."""

    def note(identity: Any) -> None:
        key, dtype, size = described_storage(path, _typed(path, identity))
        if size < 0:
            raise FileFormatError(path, f"the storage {shown(key)} claims {size} elements")
        if sizes.setdefault(key, (dtype, size)) != (dtype, size):
            raise FileFormatError(path, f"the storage {shown(key)} is described in two ways")

    made: dict[str, Callable[[tuple], Any]] = dict.fromkeys(FUNCTIONS, lambda arguments: None)
    made["collections.OrderedDict"] = lambda arguments: {}
    return vocabulary(made, note)


def _typed(path: Path, identity: Any) -> Any:
    """A storage's description without the part of another storage that it may be a view of."""
    if type(identity) is tuple and len(identity) == 6:
        if identity[5] is not None:
            raise FileFormatError(path, "a storage is a view of another; clone the tensors first")
        return identity[:5]
    return identity


def _records(path: Path, data: mmap.mmap, at: int, keys: Any, sizes: Sizes) -> dict[str, slice]:
    """Where the elements of each storage are, which fill the file from `at` to its end."""
    if type(keys) is not list or len(keys) != len(sizes) or not all(
        type(key) is str and key in sizes for key in keys
    ) or len(set(keys)) != len(keys):  # fmt: skip
        raise FileFormatError(path, "is damaged: its list of storages is not that of its tensors")
    records = {}
    for key in keys:
        dtype, size = sizes[key]
        start, stop = at + 8, at + 8 + size * (dtype.itemsize if dtype else 1)
        if stop > len(data):
            raise FileFormatError(path, f"ends within the storage {shown(key)}; is truncated")
        (count,) = struct.unpack("<q", data[at:start])
        if count != size:
            raise FileFormatError(
                path, f"the storage {shown(key)} claims {size} elements, but {count} are stored"
            )
        records[key], at = slice(start, stop), stop
    if at != len(data):
        raise FileFormatError(path, f"has {len(data) - at} bytes after its last storage")
    return records
