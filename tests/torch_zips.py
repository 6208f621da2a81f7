"""Files as `torch.save` writes them, valid and not, assembled without torch: zips, and the pickles
and bare storages of torch before 1.6."""

import pickle
import struct
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np

STORAGES = {
    np.dtype(dtype): name
    for name, dtype in {
        "HalfStorage": np.float16, "BFloat16Storage": ml_dtypes.bfloat16,
        "FloatStorage": np.float32, "DoubleStorage": np.float64,
        "ComplexFloatStorage": np.complex64,
        "CharStorage": np.int8, "ShortStorage": np.int16, "IntStorage": np.int32,
        "LongStorage": np.int64, "ByteStorage": np.uint8, "BoolStorage": np.bool_,
    }.items()
}  # fmt: skip


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded


def many(*values: bytes) -> bytes:
    return b"(" + b"".join(values) + b"t"


def numbers(values) -> bytes:
    return many(*map(number, values))


def name(full: str) -> bytes:
    module, _, last = full.rpartition(".")
    return f"c{module}\n{last}\n".encode()


def call(full: str, *arguments: bytes) -> bytes:
    return name(full) + many(*arguments) + b"R"


def mapping(pairs, *, ordered: bool = False) -> bytes:
    start = call("collections.OrderedDict") if ordered else b"}"
    return start + b"(" + b"".join(text(key) + value for key, value in dict(pairs).items()) + b"u"


def storage(
    key: str, size: int, kind: str = "torch.FloatStorage", *more: bytes, word: bytes | None = None
) -> bytes:
    first = text("storage") if word is None else word
    return many(first, name(kind), text(key), text("cpu"), number(size), *more) + b"Q"


def tensor(
    key: str, size: int, shape, strides, *, offset: int = 0, kind: str = "torch.FloatStorage"
) -> bytes:
    hooks = call("collections.OrderedDict")
    return call(
        "torch._utils._rebuild_tensor_v2", storage(key, size, kind), number(offset),
        numbers(shape), numbers(strides), b"\x89", hooks,
    )  # fmt: skip


def whole(key: str, array: np.ndarray) -> bytes:
    """A tensor that is all of the storage `key`."""
    strides = [step // array.itemsize for step in array.strides]
    kind = f"torch.{STORAGES[array.dtype]}"
    return tensor(key, array.size, array.shape, strides, kind=kind)


def write(
    path: Path,
    value: bytes,
    storages: dict[str, bytes | np.ndarray] | None = None,
    *,
    others: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """A zip whose pickle makes `value`, which is given as instructions."""
    entries = {"data.pkl": b"\x80\x02" + value + b".", "byteorder": b"little", **(others or {})}
    for key, content in (storages or {}).items():
        content = content.tobytes() if isinstance(content, np.ndarray) else content
        entries[f"data/{key}"] = content
    with zipfile.ZipFile(path, "w", compression) as archive:
        for entry, content in {**entries, "version": b"3\n"}.items():
            archive.writestr(f"archive/{entry}", content)
    return path


def write_old(
    path: Path,
    value: bytes,
    storages: dict[str, np.ndarray] | None = None,
    *,
    magic: int = 0x1950A86A20F9469CFC6C,
    version: int = 1001,
    machine: object = None,
    keys: object = None,
    counts: dict[str, int] | None = None,
    after: bytes = b"",
) -> Path:
    """A file as torch before 1.6 wrote it, whose pickle makes `value`."""
    storages, counts = storages or {}, counts or {}
    machine = {"protocol_version": version, "little_endian": True} if machine is None else machine
    content = pickle.dumps(magic, 2) + pickle.dumps(version, 2) + pickle.dumps(machine, 2)
    content += b"\x80\x02" + value + b"."
    content += pickle.dumps(list(storages) if keys is None else keys, 2)
    for key, array in storages.items():
        content += struct.pack("<q", counts.get(key, array.size)) + array.tobytes()
    path.write_bytes(content + after)
    return path
