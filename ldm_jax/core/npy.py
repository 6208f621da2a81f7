"""Arrays in `.npy` files of unknown origin, of which no more is read than is wanted."""

import math
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32

from ldm_jax.core.reading import FileFormatError, open_file

_MAGIC = b"\x93NUMPY"


def read_rows(
    path: str | Path,
    row: tuple[int, ...],
    start: int,
    count: int,
    *,
    most: float,
    repeat: bool = False,
) -> Float32[np.ndarray, "n ..."]:
    """Rows `start` to `start + count` of the file's array, each of shape `row`, in float32.

    With `repeat` an array of a single row stands for all.

    Raises:
        FileFormatError: not a regular file, not one that `numpy.save` wrote, cut off, of other
            numbers than floating-point ones or of another shape, of too few rows, or with values
            that are not finite or beyond `most`.
    """
    with open_file(path) as file:
        shape, dtype = _header(path, file)
        if dtype.kind != "f" or dtype.hasobject:
            raise FileFormatError(path, f"holds {dtype}; it must hold floating-point numbers")
        if len(shape) != len(row) + 1 or shape[1:] != row:
            raise FileFormatError(
                path, f"has shape {shape}; it must be {('n', *row)}, n pictures".replace("'n'", "n")
            )
        alone = repeat and shape[0] == 1
        if alone:
            start, wanted = 0, 1
        else:
            wanted = count
        if start + wanted > shape[0]:
            raise FileFormatError(
                path, f"holds {shape[0]} pictures, but {count} are drawn from row {start} on"
            )
        size = int(np.prod(row)) * dtype.itemsize
        file.seek(start * size, 1)
        data = file.read(wanted * size)
    if len(data) < wanted * size:
        raise FileFormatError(path, "is cut off; copy it again")
    rows = np.frombuffer(data, dtype).reshape(wanted, *row)
    if not np.isfinite(rows).all():
        raise FileFormatError(path, "holds values that are not finite")
    furthest = rows.flat[np.abs(rows).argmax()]
    if abs(furthest) > most:
        raise FileFormatError(
            path,
            f"holds the value {furthest:.3g}; its values must lie between {-most:g} and {most:g}",
        )
    rows = rows.astype(np.float32)
    return np.repeat(rows, count, axis=0) if alone else rows


def read_matrix(path: str | Path, most: int) -> Float32[np.ndarray, "h w"]:
    """The file's array of two axes, at most `most` numbers, in float32.

    Raises:
        FileFormatError: not a regular file, not one that `numpy.save` wrote, cut off, not of
            numbers, of another shape, of more numbers, or with values that are not finite.
    """
    with open_file(path) as file:
        shape, dtype = _header(path, file)
        if dtype.kind not in "fiu" or dtype.hasobject:
            raise FileFormatError(path, f"holds {dtype}; it must hold numbers")
        if len(shape) != 2 or not 0 < math.prod(shape) <= most:
            raise FileFormatError(
                path, f"has shape {shape}; it must be (height, width), of 1 to {most} numbers"
            )
        size = math.prod(shape) * dtype.itemsize
        data = file.read(size)
    if len(data) < size:
        raise FileFormatError(path, "is cut off; copy it again")
    matrix = np.frombuffer(data, dtype).reshape(shape)
    with np.errstate(over="ignore"):  # which is not finite then
        matrix = matrix.astype(np.float32)
    if not np.isfinite(matrix).all():
        raise FileFormatError(path, "holds values that are not finite numbers of 32 bits")
    return matrix


def _header(path: str | Path, file: BinaryIO) -> tuple[tuple[int, ...], Any]:
    """Shape and dtype of the array that begins where the file now stands."""
    if file.read(len(_MAGIC)) != _MAGIC:
        raise FileFormatError(path, "is not a .npy file, which numpy.save writes")
    file.seek(0)
    try:
        version = np.lib.format.read_magic(file)
        if version == (1, 0):
            shape, columns_first, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, columns_first, dtype = np.lib.format.read_array_header_2_0(file)
    except Exception as error:  # a damaged header makes NumPy's parser raise nearly anything
        raise FileFormatError(path, "is damaged: its header cannot be read") from error
    if columns_first:
        raise FileFormatError(
            path, "is stored column by column; save numpy.ascontiguousarray of it"
        )
    return shape, dtype
