"""Arrays on bytes of a mapped file, whose shapes and strides nobody has vouched for."""

import math
import mmap
from typing import Any

import numpy as np

MAX_RANK = 32
# What numpy can count in bytes, whatever the dtype and whichever dimensions are empty.
MAX_ELEMENTS = 2**48


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of an array in C order."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def view(
    data: mmap.mmap, record: slice, dtype: np.dtype, offset: Any, shape: Any, strides: Any
) -> np.ndarray:
    """A read-only array on the bytes `record` of `data`; offset and strides are in elements.

    Raises:
        ValueError: says what is wrong, as the end of a sentence: not whole numbers, negative, out
            of the record, more elements than the record has room for, bool other than 0 and 1.
    """
    if not (_whole(shape) and _whole(strides) and _whole((offset,)) and len(shape) == len(strides)):
        raise ValueError("has a shape, strides or an offset that are not whole numbers from 0 on")
    if len(shape) > MAX_RANK or math.prod(max(size, 1) for size in shape) > MAX_ELEMENTS:
        raise ValueError("has a shape that no tensor has")
    count, room = math.prod(shape), (record.stop - record.start) // dtype.itemsize
    if count == 0:
        empty = np.zeros(shape, dtype)
        empty.setflags(write=False)
        return empty
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if last >= room or count > room:
        raise ValueError(
            f"has {count} elements up to the place {last}, where {room} are stored; "
            "if it is an expanded view, save its clone()"
        )
    # Of an axis of one element any stride is as good; numpy wants one within reach.
    steps = [s * dtype.itemsize if n > 1 else 0 for n, s in zip(shape, strides, strict=True)]
    start = record.start + offset * dtype.itemsize
    array = np.ndarray(shape, dtype, data, start, tuple(steps))
    if dtype == np.bool_ and array.view(np.uint8).max() > 1:
        raise ValueError("is bool but has bytes other than 0 and 1")
    return array


def _whole(values: Any) -> bool:
    """Whether these are Python integers from 0 on; True is none."""
    return isinstance(values, tuple) and all(type(value) is int and value >= 0 for value in values)
