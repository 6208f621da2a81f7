"""Constants of frozen graphs are read as protocol buffers' own library writes them."""

import numpy as np
import pytest
import tensorflow_graphs

from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.tensorflow_graph import looks_like_graph, read_constants

RANDOM = np.random.default_rng(0)
CONSTANTS = {
    "conv/conv2d_params": RANDOM.random((3, 3, 2, 4), np.float32),
    "values": RANDOM.random(300, np.float32),
    "one_for_all": np.full((4, 3), 0.5, np.float32),
    "scalar": np.full((), 128, np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "whole": np.arange(3, dtype=np.int32),
}
DATA = tensorflow_graphs.graph(CONSTANTS, ("values", "one_for_all", "scalar"))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "graph.pb"


def test_values(file):
    file.write_bytes(DATA)
    assert looks_like_graph(DATA[:9])
    found = read_constants(file)
    assert found.keys() == CONSTANTS.keys() - {"whole"}
    for name, array in found.items():
        np.testing.assert_array_equal(array, CONSTANTS[name])
        assert array.dtype == np.float32 and not array.flags.writeable


def test_every_cut_is_seen_or_changes_nothing(file):
    """Between two nodes a graph ends well; anywhere else it is damaged."""
    for length in range(1, len(DATA), 37):
        file.write_bytes(DATA[:length])
        try:
            found = read_constants(file)
        except FileFormatError as error:
            assert "is no frozen graph" in str(error)
        else:
            for name, array in found.items():
                np.testing.assert_array_equal(array, CONSTANTS[name])


@pytest.mark.parametrize(("data", "problem"), [
    (b"\x0b", "a field has the type 3"),
    (b"\x0a\x7f", "a field is cut off"),
    (b"\x0a" + b"\xff" * 10 + b"\x01", "more than ten bytes"),
    (b"\x0a\x03\x0a\x01\xff", "decode"),
    (b"\x18\x08", "it has no constants"),
    (DATA + DATA, "it has two nodes"),
])  # fmt: skip
def test_damaged(file, data, problem):
    file.write_bytes(data)
    with pytest.raises(FileFormatError, match=problem):
        read_constants(file)


@pytest.mark.parametrize("side", [2**62, -1, 5])
def test_shapes_that_lie(file, side):
    made = tensorflow_graphs.messages()["Graph"]()
    made.ParseFromString(tensorflow_graphs.graph({"a": np.ones(4, np.float32)}))
    made.node[1].attr[1].value.tensor.tensor_shape.dim[0].size = side
    file.write_bytes(made.SerializeToString())
    with pytest.raises(FileFormatError, match="an array (has|of) the shape"):
        read_constants(file)
