"""Safetensors files read as mapped arrays, with nothing in them taken on its word, and written.

Format: https://huggingface.co/docs/safetensors/index#format
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ldm_jax.core.files import temporary, writing
from ldm_jax.core.reading import FileFormatError, map_file, parse_json, shown
from ldm_jax.formats import strided

MAX_HEADER = 100_000_000
"""Bytes; the limit of the format's own library."""
METADATA = "__metadata__"

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2,
    "F8_E8M0": ml_dtypes.float8_e8m0fnu, "C64": np.complex64,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip
DTYPES = {name: np.dtype(dtype) for name, dtype in DTYPES.items()}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def looks_like_safetensors(start: bytes) -> bool:
    """Whether a file that begins like this has a header after the eight bytes of its length."""
    return start[8:9] == b"{"


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors by name, as read-only views of the mapped file, and the metadata.

    The file must stay unchanged while its arrays are in use.

    Raises:
        FileFormatError: the file is missing, not such a file, damaged or lying; says which tensor.
    """
    data = map_file(path)
    length = int.from_bytes(data[:8], "little")
    if not looks_like_safetensors(data[:9]):
        raise FileFormatError(path, "is not a safetensors file: it has no header")
    if length > min(MAX_HEADER, len(data) - 8):
        raise FileFormatError(
            path,
            f"claims a header of {length} bytes, of the {len(data)} it has and the {MAX_HEADER} "
            "allowed; it is damaged or truncated, copy or download it again",
        )
    header = parse_json(path, "its header", data[8 : 8 + length])
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FileFormatError(path, f"its {METADATA} is not a map of names to text")

    ranges = []
    tensors = {}
    for name, entry in header.items():
        try:
            record, dtype, shape = _record(entry, 8 + length, len(data))
            strides = strided.contiguous_strides(shape)
            tensors[name] = strided.view(data, record, dtype, 0, shape, strides)
        except ValueError as error:
            raise FileFormatError(path, f"the tensor {shown(name)} {error}") from error
        ranges.append((record.start, record.stop, name))

    end = 8 + length
    for start, stop, name in sorted(ranges):
        if start != end:
            what = "overlaps the one before" if start < end else "leaves a hole before it"
            raise FileFormatError(path, f"the tensor {shown(name)} {what}")
        end = stop
    if end != len(data):
        raise FileFormatError(path, f"has {len(data) - end} bytes after its last tensor")
    return tensors, metadata


def _record(entry: Any, start: int, size: int) -> tuple[slice, np.dtype, tuple[int, ...]]:
    """Where in the file a tensor is, its dtype and shape.

    Raises:
        ValueError: says what is wrong with the entry, as the end of a sentence.
    """
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"has the dtype {shown(dtype)}; known are {', '.join(DTYPES)}")
    if not _whole(shape) or len(shape) > strided.MAX_RANK:
        raise ValueError("has a shape that is not a list of whole numbers from 0 on")
    if not _whole(offsets) or len(offsets) != 2:
        raise ValueError("has data_offsets that are not two whole numbers from 0 on")
    begin, end = offsets
    if not begin <= end <= size - start:
        raise ValueError(f"lies outside of the file (data_offsets {_short(offsets)}); "
                         "it is truncated or damaged")  # fmt: skip
    count = 1
    for dimension in shape:
        # Python's integers do not overflow, but would grow long.
        count = min(count, size + 1) * min(dimension, size + 1)
    if count * DTYPES[dtype].itemsize != end - begin:
        raise ValueError(
            f"has {end - begin} bytes, which its shape {_short(shape)} of {dtype} does not take"
        )
    return slice(start + begin, start + end), DTYPES[dtype], tuple(shape)


def _whole(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)


def _short(numbers: list[int]) -> str:
    return "[" + ", ".join(str(n) if n < 10**20 else "huge" for n in numbers) + "]"


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes the tensors, which may be views of any strides and byte order, and the metadata.

    Tensors stand by size of their elements, larger first, then by name, so that all are aligned
    and the same content gives the same bytes. They are written one after the other: more than one
    is never copied. The file appears under its name once it is complete, and replaces what had it.
    diffusers and transformers want the metadata {"format": "pt"}.

    Raises:
        FileFormatError: names the tensor or metadata that the format cannot hold.
        NotWritten: the file cannot be written; what was written of it is removed.
    """
    order = _order(tensors)
    header = _header(path, order, tensors, metadata or {})
    with writing(path), temporary(path) as draft:
        with draft.open("wb") as file:
            file.write(len(header).to_bytes(8, "little"))
            file.write(header)
            for name in order:
                file.write(_bytes(tensors[name]))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)


def tensors_digest(tensors: Mapping[str, np.ndarray]) -> str:
    """The SHA-256, in hexadecimal, of all that `write_safetensors` writes behind the header."""
    digest = hashlib.sha256()
    for name in _order(tensors):
        digest.update(_bytes(tensors[name]))
    return digest.hexdigest()


def _order(tensors: Mapping[str, np.ndarray]) -> list[str]:
    return sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))


def _bytes(array: np.ndarray | np.generic) -> np.ndarray:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return little.reshape(-1).view(np.uint8)


def _header(
    path: Path, order: list[str], tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> bytes:
    """JSON in UTF-8, filled up with spaces so that the tensors begin at a multiple of 8 bytes."""
    entries: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))} if metadata else {}
    end = 0
    for name in order:
        array = tensors[name]
        dtype = _NAMES.get(array.dtype.newbyteorder("="))
        if name == METADATA or dtype is None:
            raise FileFormatError(
                path, f"cannot hold the tensor {shown(name)} of {array.dtype}; its names are any "
                f"but {METADATA}, its dtypes {', '.join(DTYPES)}"
            )  # fmt: skip
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    try:
        header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise FileFormatError(path, f"cannot hold a name that is not text: {error}") from error
    header += b" " * (-len(header) % 8)
    if len(header) > MAX_HEADER:
        raise FileFormatError(path, f"would have a header of more than {MAX_HEADER} bytes")
    return header
