"""Constants of a frozen graph of TensorFlow 1 (.pb), read without TensorFlow: of protocol buffers'
wire format only what such a file is made of.

Format: https://protobuf.dev/programming-guides/encoding, and tensorflow/core/framework's
graph.proto, node_def.proto, attr_value.proto, tensor.proto and tensor_shape.proto.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ldm_jax.core.reading import FileFormatError, map_file, shown

MAX_BYTES = 2**31
"""Of a message, says the format."""
_MAX_RANK = 8
_FLOAT = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Field = tuple[int, int, int | memoryview]
"""Number, wire type, and the value or the bytes."""


def looks_like_graph(start: bytes) -> bool:
    """Whether a file that begins like this may be one: its first field is a node."""
    return start[:1] == b"\x0a" and start[2:3] != b"" and start[8:9] != b"{"


def read_constants(path: Path) -> dict[str, np.ndarray]:
    """All constants of float32 in a graph, by the names of their nodes; read-only.

    Raises:
        FileFormatError: the file is missing, damaged or of another format.
    """
    data = map_file(path)
    if len(data) > MAX_BYTES:
        raise FileFormatError(path, f"has {len(data)} bytes, more than a graph may have")
    found: dict[str, np.ndarray] = {}
    try:
        for number, _, node in _fields(memoryview(data[:])):
            if number == 1 and isinstance(node, memoryview):
                name, array = _constant(node)
                if name in found:
                    raise ValueError(f"it has two nodes {shown(name)}")
                if array is not None:
                    found[name] = array
    except (ValueError, UnicodeDecodeError) as error:
        raise FileFormatError(path, f"is no frozen graph, or damaged: {error}") from error
    if not found:
        raise FileFormatError(path, "is no frozen graph: it has no constants")
    return found


def _fields(data: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, kind, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field has the type {kind}")
        if length > len(data) - at:
            raise ValueError("a field is cut off")
        yield number, kind, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            raise ValueError("a number is cut off")
        byte = data[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("a number has more than ten bytes")


def _constant(node: memoryview) -> tuple[str, np.ndarray | None]:
    """The name of a node, and its array where it is a constant of float32."""
    name, operation, array = "", "", None
    for number, kind, value in _fields(node):
        if kind != _BYTES:
            continue
        if number == 1:
            name = bytes(value).decode()
        elif number == 2:
            operation = bytes(value).decode()
        elif number == 5:
            entry = {key: part for key, _, part in _fields(value)}
            if entry.get(1) == b"value" and isinstance(entry.get(2), memoryview):
                tensors = [t for n, kind, t in _fields(entry[2]) if (n, kind) == (8, _BYTES)]
                array = _tensor(tensors[0]) if tensors else None
    return name, array if operation == "Const" else None


def _tensor(message: memoryview) -> np.ndarray | None:
    """An array from its shape and either its bytes, or its values, of which one stands for all."""
    dtype, shape, content, values = 0, (), b"", []
    for number, kind, value in _fields(message):
        match number, kind:
            case 1, 0:
                dtype = value
            case 2, 2:
                shape = _shape(value)
            case 4, 2:
                content = value
            case 5, (2 | 5):
                values.append(value)
    if dtype != _FLOAT:
        return None
    count = math.prod(shape)
    flat = np.frombuffer(content or b"".join(values), "<f4")
    if not content and len(flat) == 1:
        if count > MAX_BYTES // 4:
            raise ValueError(f"an array has the shape {shape}")
        flat = np.broadcast_to(flat, count)
    if len(flat) != count:
        raise ValueError(f"an array of the shape {shape} has {len(flat)} values")
    return flat.reshape(shape)


def _shape(message: memoryview) -> tuple[int, ...]:
    sides = []
    for number, kind, dimension in _fields(message):
        if (number, kind) == (2, _BYTES):
            sides.append(next((s for n, k, s in _fields(dimension) if (n, k) == (1, _VARINT)), 0))
    if len(sides) > _MAX_RANK or math.prod(max(side, 1) for side in sides) > MAX_BYTES:
        raise ValueError(f"an array has the shape {tuple(sides)}")
    return tuple(sides)
