"""Frozen graphs of TensorFlow, written by protocol buffers' own library from the same messages."""

from functools import cache

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Kind = descriptor_pb2.FieldDescriptorProto
MESSAGES = {
    "Dim": [("size", 1, Kind.TYPE_INT64, False), ("name", 2, Kind.TYPE_STRING, False)],
    "Shape": [("dim", 2, "Dim", True), ("unknown_rank", 3, Kind.TYPE_BOOL, False)],
    "Tensor": [
        ("dtype", 1, Kind.TYPE_INT32, False), ("tensor_shape", 2, "Shape", False),
        ("version_number", 3, Kind.TYPE_INT32, False),
        ("tensor_content", 4, Kind.TYPE_BYTES, False), ("float_val", 5, Kind.TYPE_FLOAT, True),
        ("int_val", 7, Kind.TYPE_INT32, True),
    ],
    "Value": [("type", 6, Kind.TYPE_INT32, False), ("tensor", 8, "Tensor", False)],
    "Attr": [("key", 1, Kind.TYPE_STRING, False), ("value", 2, "Value", False)],
    "Node": [
        ("name", 1, Kind.TYPE_STRING, False), ("op", 2, Kind.TYPE_STRING, False),
        ("input", 3, Kind.TYPE_STRING, True), ("attr", 5, "Attr", True),
    ],
    "Graph": [("node", 1, "Node", True), ("version", 3, Kind.TYPE_INT32, False)],
}  # fmt: skip
"""Fields: name, number, type, whether there are several. A map is what it is on the wire."""


@cache
def messages() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="graph.proto", package="g", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, several in fields:
            made = message.field.add(name=field, number=number)
            made.label = Kind.LABEL_REPEATED if several else Kind.LABEL_OPTIONAL
            if isinstance(kind, str):
                made.type, made.type_name = Kind.TYPE_MESSAGE, f".g.{kind}"
            else:
                made.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"g.{name}"))
        for name in MESSAGES
    }


def graph(constants: dict[str, np.ndarray], as_values: tuple[str, ...] = ()) -> bytes:
    """A graph of such constants among other nodes; those of `as_values` as lists of numbers, of
    which one alone stands for all."""
    made = messages()["Graph"](version=8)
    made.node.add(name="image", op="Placeholder").attr.add(key="dtype").value.type = 1
    for name, array in constants.items():
        node = made.node.add(name=name, op="Const")
        node.attr.add(key="dtype").value.type = 1
        tensor = node.attr.add(key="value").value.tensor
        tensor.dtype = {"float32": 1, "int32": 3}[array.dtype.name]
        for side in array.shape:
            tensor.tensor_shape.dim.add(size=side)
        if array.dtype == np.int32:
            tensor.int_val.extend(array.reshape(-1).tolist())
        elif name in as_values:
            same = len(set(array.reshape(-1).tolist())) == 1
            tensor.float_val.extend(array.reshape(-1)[: 1 if same else None].tolist())
        else:
            tensor.tensor_content = array.tobytes()
    made.node.add(name="softmax", op="Softmax", input=["softmax/logits"])
    return made.SerializeToString()
