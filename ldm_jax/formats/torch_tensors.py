"""What the pickle in a tensor file of torch may name, and the tensors that it describes."""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from ldm_jax.core.reading import FileFormatError, shown
from ldm_jax.formats import strided
from ldm_jax.formats.pickles import Placeholder, Vocabulary

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

_RECORDS = ("torch.nn.modules.container.ParameterDict",)
"""Its parameters are in its `_parameters`."""


def _is_foreign(name: str) -> bool:
    return name in _FOREIGN or name.partition(".")[0] in _FOREIGN_PACKAGES


def vocabulary(
    functions: dict[str, Callable[[tuple], Any]], persistent: Callable[[Any], Any]
) -> Vocabulary:
    """The names that stand in files of tensors, with what is made of them."""
    constants = {*_STORAGES, *_UNTYPED, *_DTYPES}
    return Vocabulary(functions, constants, _RECORDS, _is_foreign, persistent)


def described_storage(path: Path, identity: Any) -> tuple[str, np.dtype | None, int]:
    """Key, dtype and number of elements in ("storage", type, key, device, number of elements);
    without a dtype, of bytes."""
    match identity:
        # A tensor may stand anywhere in there, and comparing it with text has no answer.
        case (str(word), Placeholder(name=name), str(key), str(), size) if (
            word == "storage" and (name in _STORAGES or name in _UNTYPED) and type(size) is int
        ):
            return key, _STORAGES.get(name), size
    raise FileFormatError(path, "its pickle is damaged: a storage is not described as one")


@dataclass(frozen=True)
class Storage:
    """Stored numbers, as a tensor uses them; of no dtype where they are untyped."""

    key: str
    dtype: np.dtype | None
    record: slice


@dataclass
class Tensors:
    """Makes the tensors of one file, in bounds."""

    path: Path
    data: mmap.mmap
    records: dict[str, slice]
    """Where in the file the bytes of each storage are."""
    claimed: int = 0

    def vocabulary(self) -> Vocabulary:
        """The words of a pickle that describes tensors."""
        return vocabulary(self.functions(), self.storage)

    def functions(self) -> dict[str, Callable[[tuple], Any]]:
        """What the functions of `FUNCTIONS` make in this file."""
        return {name: partial(function, self) for name, function in FUNCTIONS.items()}

    def error(self, problem: str) -> FileFormatError:
        return FileFormatError(self.path, problem)

    def storage(self, identity: Any) -> Storage:
        """("storage", type, key of the record, device, number of elements)."""
        key, dtype, size = described_storage(self.path, identity)
        record = self.records.get(key)
        if record is None:
            raise self.error(f"the record data/{shown(key)} is missing; the file is damaged")
        length, itemsize = record.stop - record.start, dtype.itemsize if dtype else 1
        if size * itemsize != length:
            raise self.error(
                f"the storage {shown(key)} claims {size} elements of {itemsize} bytes, but its "
                f"record has {length} bytes"
            )
        return Storage(key, dtype, record)

    def ordered_dict(self, arguments: tuple) -> dict:
        if arguments:
            raise self.error("its pickle fills an OrderedDict in an unknown way")
        return {}

    def tensor(self, arguments: tuple) -> np.ndarray:
        """(storage, offset, shape, strides, requires_grad, hooks, metadata), the first four or
        more; in elements."""
        match arguments:
            case (Storage(dtype=np.dtype()) as storage, offset, shape, strides, *rest):
                if len(rest) == 3 and not (rest[2] is None or type(rest[2]) is dict):
                    raise self.error("its pickle is damaged: a tensor is not described as one")
                if len(rest) == 3 and rest[2]:
                    # Conjugated or negated when it is used: the stored numbers are others.
                    raise self.error(f"a tensor on {shown(storage.key)} is a lazy conjugate; "
                                     "save its resolve_conj().resolve_neg()")  # fmt: skip
                return self.array(storage, storage.dtype, offset, shape, strides)
        raise self.error("its pickle is damaged: a tensor is not described as one")

    def tensor_with_dtype(self, arguments: tuple) -> np.ndarray:
        """(storage, offset, shape, strides, requires_grad, hooks, dtype): the newer dtypes."""
        match arguments:
            case (Storage() as storage, offset, shape, strides, _, _, Placeholder(name=name)) if (
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
        self, storage: Storage, dtype: np.dtype, offset: Any, shape: Any, strides: Any
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


FUNCTIONS: dict[str, Callable[[Tensors, tuple], Any]] = {
    "collections.OrderedDict": Tensors.ordered_dict,
    "torch._utils._rebuild_tensor": Tensors.tensor,
    "torch._utils._rebuild_tensor_v2": Tensors.tensor,
    "torch._utils._rebuild_tensor_v3": Tensors.tensor_with_dtype,
    "torch._utils._rebuild_parameter": Tensors.parameter,
}
"""What a file may call, and what that makes of its arguments."""
