"""Tensor files of torch (.ckpt, .pt, .pth, .bin; a zip with a pickle) read into numpy, without
torch and without running what the pickle asks for."""

import mmap
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ldm_jax.convert import pickles, strided
from ldm_jax.convert.mapped import FileFormatError, map_file, shown
from ldm_jax.convert.pickles import ADVICE, Placeholder

MAGIC = b"PK\x03\x04"
MAX_DIRECTORY = 4 * 2**20
"""Bytes of a zip's list of contents, or of what may follow it: some 40,000 storages."""
MAX_SHARING = 4
"""How often, on average, tensors may share what is stored; two with tied weights do it twice."""

_DTYPES = {
    "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "float32": np.float32,
    "float64": np.float64, "complex64": np.complex64, "complex128": np.complex128,
    "int8": np.int8, "int16": np.int16, "int32": np.int32, "int64": np.int64, "uint8": np.uint8,
    "uint16": np.uint16, "uint32": np.uint32, "uint64": np.uint64, "bool": np.bool_,
    "float8_e4m3fn": ml_dtypes.float8_e4m3fn, "float8_e5m2": ml_dtypes.float8_e5m2,
    "float8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz, "float8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
}  # fmt: skip
_DTYPES = {f"torch.{name}": np.dtype(dtype) for name, dtype in _DTYPES.items()}
_STORAGES = {
    "Half": "float16", "BFloat16": "bfloat16", "Float": "float32", "Double": "float64",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128", "Char": "int8",
    "Short": "int16", "Int": "int32", "Long": "int64", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip
_STORAGES = {f"torch.{name}Storage": _DTYPES[f"torch.{to}"] for name, to in _STORAGES.items()}
_UNTYPED = ("torch.storage.UntypedStorage", "torch.UntypedStorage")

# What training frameworks put beside the weights: callbacks, settings, numpy's numbers. It stays
# unread, and its place is taken by its name.
_FOREIGN_PACKAGES = ("pytorch_lightning", "lightning", "lightning_fabric", "omegaconf")
_FOREIGN = {
    "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray._reconstruct", "numpy.ndarray",
    "_codecs.encode", "torch.Size", "torch.device", "typing.Any", "collections.defaultdict",
    "collections.Counter", "argparse.Namespace",
    "pathlib.Path", "pathlib.PosixPath", "pathlib.WindowsPath",
} | {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")
    for name in ("bool", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "object",
                 "set", "str", "tuple")
}  # fmt: skip


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote, with arrays in the places of tensors and of parameters.

    Arrays are read-only views of the mapped file, with the strides that they were saved with.
    Ordered dicts become dicts. Classes and objects of Lightning and OmegaConf, and the few of
    numpy and Python that stand beside the weights in training checkpoints (numbers, sets, paths),
    become a `Placeholder` that keeps nothing but the name. Whatever else is named is refused.

    The file must stay unchanged while its arrays are in use.

    Raises:
        FileFormatError: the file is missing, not such a file, damaged, lying about sizes, or asks
            for something that is not allowed, which is named.
    """
    data = map_file(path)
    if data[:4] != MAGIC:
        raise FileFormatError(path, _not_a_zip(data))
    records = _records(path, data)
    roots = [name.removesuffix("/data.pkl") for name in records if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise FileFormatError(
            path, "is a zip without the one data.pkl that torch.save writes; save it with torch"
        )
    root = roots[0]
    if f"{root}/constants.pkl" in records:
        raise FileFormatError(path, f"is a TorchScript program, not a file of tensors; {ADVICE}")
    order = records.get(f"{root}/byteorder")
    if order is not None and data[order.start : min(order.stop, order.start + 8)] != b"little":
        raise FileFormatError(path, "its byteorder is not little; save it on another machine")
    pickle = records[f"{root}/data.pkl"]
    if pickle.stop - pickle.start > pickles.MAX_BYTES:
        raise FileFormatError(path, f"its pickle has more than {pickles.MAX_BYTES} bytes")
    tensors = _Tensors(path, data, root, records)
    words = pickles.Vocabulary(
        functions=tensors.functions(),
        constants={*_STORAGES, *_UNTYPED, *_DTYPES},
        is_foreign=_is_foreign,
        persistent=tensors.storage,
    )
    return pickles.unpickle(path, data[pickle.start : pickle.stop], words)


def is_old_format(start: bytes) -> bool:
    """Whether a file that begins like this is a bare pickle or a tar, as torch before 1.6 wrote."""
    return start[:1] == b"\x80" or start[257:262] == b"ustar"


def _not_a_zip(data: mmap.mmap) -> str:
    if is_old_format(data[:512]):
        return (
            "is in torch's old format without zip, which is not read; if you trust it, open it "
            "with torch and save it again: "
            "torch.save(torch.load(old, 'cpu', weights_only=True), new)"
        )
    return "is not a zip as torch.save writes it"


def _is_foreign(name: str) -> bool:
    return name in _FOREIGN or name.partition(".")[0] in _FOREIGN_PACKAGES


@dataclass(frozen=True)
class _Storage:
    """One record of the zip, as a tensor uses it; of no dtype where it is untyped."""

    key: str
    dtype: np.dtype | None
    record: slice


@dataclass
class _Tensors:
    """Makes the tensors of one file, in bounds."""

    path: Path
    data: mmap.mmap
    root: str
    records: dict[str, slice]
    claimed: int = 0

    def functions(self) -> dict[str, Callable[[tuple], Any]]:
        return {
            "collections.OrderedDict": self.ordered_dict,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.tensor_with_dtype,
            "torch._utils._rebuild_parameter": self.parameter,
        }

    def error(self, problem: str) -> FileFormatError:
        return FileFormatError(self.path, problem)

    def storage(self, identity: Any) -> _Storage:
        """("storage", type, key of the record, device, number of elements)."""
        match identity:
            case ("storage", Placeholder(name=name), str(key), str(), size) if (
                name in _STORAGES or name in _UNTYPED
            ) and type(size) is int:
                dtype = _STORAGES.get(name)
            case _:
                raise self.error("its pickle is damaged: a storage is not described as one")
        record = self.records.get(f"{self.root}/data/{key}")
        if record is None:
            raise self.error(f"the record data/{shown(key)} is missing; the file is damaged")
        length, itemsize = record.stop - record.start, dtype.itemsize if dtype else 1
        if size * itemsize != length:
            raise self.error(
                f"the storage {shown(key)} claims {size} elements of {itemsize} bytes, but its "
                f"record has {length} bytes"
            )
        return _Storage(key, dtype, record)

    def ordered_dict(self, arguments: tuple) -> dict:
        if arguments:
            raise self.error("its pickle fills an OrderedDict in an unknown way")
        return {}

    def tensor(self, arguments: tuple) -> np.ndarray:
        """(storage, offset, shape, strides, requires_grad, hooks, metadata), the first four or
        more; in elements."""
        match arguments:
            case (_Storage(dtype=np.dtype()) as storage, offset, shape, strides, *rest):
                if len(rest) == 3 and rest[2]:
                    # Conjugated or negated when it is used: the stored numbers are others.
                    raise self.error(f"a tensor on {shown(storage.key)} is a lazy conjugate; "
                                     "save its resolve_conj().resolve_neg()")  # fmt: skip
                return self.array(storage, storage.dtype, offset, shape, strides)
        raise self.error("its pickle is damaged: a tensor is not described as one")

    def tensor_with_dtype(self, arguments: tuple) -> np.ndarray:
        """(storage, offset, shape, strides, requires_grad, hooks, dtype): the newer dtypes."""
        match arguments:
            case (_Storage() as storage, offset, shape, strides, _, _, Placeholder(name=name)) if (
                name in _DTYPES
            ):
                return self.array(storage, _DTYPES[name], offset, shape, strides)
        raise self.error("its pickle is damaged: a tensor is not described as one")

    def parameter(self, arguments: tuple) -> np.ndarray:
        """(tensor, requires_grad, hooks)."""
        match arguments:
            case (np.ndarray() as array, _, _):
                return array
        raise self.error("its pickle is damaged: a parameter is not described as one")

    def array(
        self, storage: _Storage, dtype: np.dtype, offset: Any, shape: Any, strides: Any
    ) -> np.ndarray:
        try:
            array = strided.view(self.data, storage.record, dtype, offset, shape, strides)
        except ValueError as error:
            raise self.error(f"a tensor on the storage {shown(storage.key)} {error}") from error
        self.claimed += array.nbytes
        if self.claimed > MAX_SHARING * len(self.data):
            raise self.error(
                f"its tensors claim more than {MAX_SHARING} times the bytes that are stored"
            )
        return array


class _BoundedReads:
    """A file in memory for `zipfile`, which would read a list of contents of any size."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self.at, len(self.data))[whence]
        if start + offset < 0:
            raise OSError("a seek to before the start")
        self.at = start + offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        end = len(self.data) if size < 0 else min(self.at + size, len(self.data))
        if end - self.at > MAX_DIRECTORY:
            raise zipfile.BadZipFile(f"its list of contents exceeds {MAX_DIRECTORY} bytes")
        read = self.data[self.at : end]
        self.at += len(read)
        return read


def _records(path: Path, data: mmap.mmap) -> dict[str, slice]:
    """Where in the file the bytes of each entry are: stored as they are, apart from each other."""
    try:
        with zipfile.ZipFile(_BoundedReads(data)) as archive:
            entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
            end = archive.start_dir
    # zipfile raises NotImplementedError for versions and ways of compression that it cannot read.
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError, struct.error) as error:
        raise FileFormatError(
            path, f"is a damaged or truncated zip ({error}); copy or download it again"
        ) from error
    records: dict[str, slice] = {}
    free = 0
    for entry in entries:
        name = entry.orig_filename
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise FileFormatError(
                path,
                f"the entry {shown(name)} is compressed or encrypted, as in TorchScript programs "
                "and repacked files; save the tensors with torch.save",
            )
        # Its own header repeats the name and says how long name and padding are.
        header = data[entry.header_offset : entry.header_offset + 30]
        if len(header) < 30 or header[:4] != MAGIC or entry.header_offset < free:
            raise FileFormatError(path, f"the entry {shown(name)} is not where the zip says")
        start = entry.header_offset + 30 + sum(struct.unpack("<2H", header[26:30]))
        free = start + entry.file_size
        if entry.compress_size != entry.file_size or free > end:
            raise FileFormatError(path, f"the entry {shown(name)} lies about its size")
        if name in records:
            raise FileFormatError(path, f"has two entries {shown(name)}")
        records[name] = slice(start, free)
    return records
