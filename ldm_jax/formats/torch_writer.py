"""Files that torch's `torch.load(…, weights_only=True)` reads, written without torch: a zip with a
pickle of plain values and tensors, and the tensors' numbers."""

import io
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.core.files import write_atomically

_STORAGES = {
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(np.int64): "LongStorage",
}
_ROOT = "archive"


def write_torch(path: Path, value: Any) -> None:
    """Writes dicts, lists, tuples, text, numbers, booleans, None, and arrays as tensors.

    Raises:
        TypeError: something else, or an array that is not of float32, float16 or int64.
        NotWritten: the file cannot be written.
    """
    arrays: list[np.ndarray] = []
    program = b"\x80\x02" + _pickled(value, arrays) + b"."
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        entries = {"data.pkl": program, "byteorder": b"little", "version": b"3\n"}
        entries |= {f"data/{i}": array.tobytes() for i, array in enumerate(arrays)}
        for name, data in entries.items():
            # A fixed date: the same value is the same file.
            archive.writestr(zipfile.ZipInfo(f"{_ROOT}/{name}", (1980, 1, 1, 0, 0, 0)), data)
    write_atomically(path, content.getvalue())


def _pickled(value: Any, arrays: list[np.ndarray]) -> bytes:
    """Instructions of pickle's protocol 2 that make the value."""
    match value:
        case None:
            return b"N"
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return b"\x8a" + bytes([len(encoded)]) + encoded
        case float():
            return b"G" + struct.pack(">d", value)
        case str():
            data = value.encode()
            return b"X" + struct.pack("<I", len(data)) + data
        case Mapping():
            items = (_pickled(k, arrays) + _pickled(v, arrays) for k, v in value.items())
            return b"}(" + b"".join(items) + b"u"
        case list():
            return b"](" + b"".join(_pickled(one, arrays) for one in value) + b"e"
        case tuple():
            return b"(" + b"".join(_pickled(one, arrays) for one in value) + b"t"
        case np.ndarray() if value.dtype in _STORAGES:
            return _tensor(value, arrays)
    raise TypeError(f"{type(value).__name__} cannot be written for torch")


def _tensor(array: np.ndarray, arrays: list[np.ndarray]) -> bytes:
    array = np.asarray(array, order="C")
    key = str(len(arrays))
    arrays.append(array)
    kind = b"ctorch\n" + _STORAGES[array.dtype].encode() + b"\n"
    storage = (
        b"(" + _pickled("storage", []) + kind + _pickled(key, []) + _pickled("cpu", [])
        + _pickled(array.size, []) + b"tQ"
    )  # fmt: skip
    strides = tuple(step // array.itemsize for step in array.strides)
    hooks = b"ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + _pickled(0, [])
        + _pickled(tuple(array.shape), []) + _pickled(strides, []) + b"\x89" + hooks + b"tR"
    )  # fmt: skip
