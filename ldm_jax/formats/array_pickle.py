"""Pickles of dicts of numpy arrays, as programs in JAX leave their parameters, read without numpy's
or anyone's own unpickling: nothing that a file names is called."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.core.reading import FileFormatError, map_file, shown
from ldm_jax.formats import pickles, strided
from ldm_jax.formats.pickles import Placeholder, Vocabulary

MAX_BYTES = 2**30
_DTYPES = ("f2", "f4", "f8")
_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_PROTOCOLS = (b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""Those that have bytes; a file of torch begins with an earlier one."""


def looks_like_array_pickle(start: bytes) -> bool:
    """Whether a file with these first bytes may be one."""
    return start[:2] in _PROTOCOLS


def read_array_pickle(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a pickled dict, or of dicts in it, by their names joined by `/`; read-only.

    Arrays are of floating-point numbers, in float16, float32 or float64.

    Raises:
        FileFormatError: the file is missing, damaged, lying about sizes, or holds or asks for
            something else, which is named.
    """
    data = map_file(path)
    if len(data) > MAX_BYTES:
        raise FileFormatError(path, f"has {len(data)} bytes, more than {MAX_BYTES}")
    if not looks_like_array_pickle(data[:2]):
        raise FileFormatError(path, "is no pickle of arrays")
    value = pickles.unpickle(path, data[:], _vocabulary(path), MAX_BYTES)
    if not isinstance(value, dict):
        raise FileFormatError(path, f"holds a {type(value).__name__}, not a dict of arrays")
    return dict(_flat(path, value, ""))


def _flat(path: Path, value: dict, above: str) -> list[tuple[str, np.ndarray]]:
    found: list[tuple[str, np.ndarray]] = []
    for name, inner in value.items():
        if not isinstance(name, str) or "/" in name:
            raise FileFormatError(path, f"has the name {shown(name)}, which is none of parameters")
        full = f"{above}{name}"
        if isinstance(inner, dict):
            found += _flat(path, inner, f"{full}/")
        elif isinstance(inner, _Array) and inner.array is not None:
            found.append((full, inner.array))
        else:
            raise FileFormatError(
                path, f"has, as {shown(full)}, a {type(inner).__name__} and not an array"
            )
    return found


class _Dtype:
    """numpy's description of a type, of which the order of bytes is told afterwards."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.dtype = path, np.dtype(f"<{name}")

    def build(self, state: Any) -> None:
        """(version, order of bytes, and what only structures have)."""
        match state:
            case (3, "<", None, None, None, -1, -1, 0):
                return
        raise FileFormatError(self.path, "has arrays of another machine's order of bytes")


class _Array:
    """An array that is made empty and then given its shape and its bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.array: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """(version, shape, dtype, whether columns come first, bytes)."""
        match state:
            case (1, tuple(shape), _Dtype(dtype=dtype), bool(columns), bytes(data)) if (
                len(shape) <= strided.MAX_RANK
                and all(type(side) is int and side >= 0 for side in shape)
                and math.prod(max(side, 1) for side in shape) <= strided.MAX_ELEMENTS
                and math.prod(shape) * dtype.itemsize == len(data)
            ):
                flat = np.frombuffer(data, dtype)
                self.array = flat.reshape(shape, order="F" if columns else "C")
                return
        raise FileFormatError(self.path, "its pickle is damaged: an array is not described as one")


def _vocabulary(path: Path) -> Vocabulary:
    def array(arguments: tuple) -> _Array:
        match arguments:
            case (Placeholder(name="numpy.ndarray"), (0,), b"b"):
                return _Array(path)
        raise FileFormatError(path, "its pickle is damaged: an array is not described as one")

    def dtype(arguments: tuple) -> _Dtype:
        match arguments:
            case (str(name), _, _) if name in _DTYPES:
                return _Dtype(path, name)
            case (str(name), _, _):
                raise FileFormatError(
                    path, f"has arrays of {shown(name)}; those of {', '.join(_DTYPES)} are read"
                )
        raise FileFormatError(path, "its pickle is damaged: a dtype is not described as one")

    def persistent(identity: Any) -> Any:
        raise FileFormatError(path, "its pickle points to something outside of it")

    functions = {f"{module}._reconstruct": array for module in _MODULES} | {"numpy.dtype": dtype}
    return Vocabulary(functions, ("numpy.ndarray",), (), lambda name: False, persistent)
