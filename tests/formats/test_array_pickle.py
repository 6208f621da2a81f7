"""Pickles of arrays are read as they were written, and never run."""

import pickle

import numpy as np
import pytest
import torch_zips as tz

from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.array_pickle import looks_like_array_pickle, read_array_pickle

RANDOM = np.random.default_rng(0)
TREE = {
    "Conv_0": {
        "kernel": RANDOM.random((3, 2, 4), np.float32),
        "turned": np.asfortranarray(RANDOM.random((3, 2), np.float32)),
        "half": RANDOM.random(5).astype(np.float16),
    },
    "scalar": np.full((), 3.0),
    "none": np.zeros((0, 3), np.float32),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.ckpt"


def refused(path, match):
    with pytest.raises(FileFormatError, match=match) as error:
        read_array_pickle(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("protocol", [3, 4])
def test_values(file, protocol):
    file.write_bytes(pickle.dumps(TREE, protocol))
    found = read_array_pickle(file)
    assert list(found) == ["Conv_0/kernel", "Conv_0/turned", "Conv_0/half", "scalar", "none"]
    for name, value in found.items():
        want = TREE
        for level in name.split("/"):
            want = want[level]
        np.testing.assert_array_equal(value, want)
        assert value.dtype == want.dtype and not value.flags.writeable


def test_older_names_of_numpys_modules(file):
    data = pickle.dumps(TREE["Conv_0"]["kernel"], 3)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    file.write_bytes(b"\x80\x03}X\x01\x00\x00\x00a" + old[2:-1] + b"s.")
    np.testing.assert_array_equal(read_array_pickle(file)["a"], TREE["Conv_0"]["kernel"])


class Evil:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(("value", "problem"), [
    ({"a": Evil(eval, "1/0")}, "asks for 'builtins.eval'"),
    ({"a": np.array([None])}, "has arrays of 'O8'"),
    ({"a": np.zeros(3, np.int32)}, "has arrays of 'i4'; those of f2, f4, f8"),
    ({"a": np.zeros(3, ">f4")}, "another machine's order"),
    ({"a": np.zeros(3, "f4,f4")}, "has arrays of 'V8'"),
    ({"a": [np.zeros(3, np.float32)]}, "has, as 'a', a list and not an array"),
    ({"a": {"b": 3}}, "has, as 'a/b', a int and not an array"),
    ({"a/b": np.zeros(3, np.float32)}, "has the name 'a/b'"),
    ({3: np.zeros(3, np.float32)}, "has the name int"),
    ([np.zeros(3, np.float32)], "holds a list"),
    ({"a": Evil(np.dtype, "f4")}, "a _Dtype and not an array|dtype is not described"),
])  # fmt: skip
def test_what_is_not_an_array(file, value, problem):
    file.write_bytes(pickle.dumps(value, 3))
    refused(file, problem)


@pytest.mark.parametrize("change", [
    (b"K\x03K\x02K\x04\x87", b"K\x03K\x02K\x05\x87"),  # a larger shape than there are bytes
    (b"K\x03K\x02K\x04\x87", b"K\x03K\x02J\xff\xff\xff\xff\x87"),
    (b"K\x03K\x02K\x04\x87", b"K\x00\x8a\x09" + b"\0" * 8 + b"\x01K\x04\x87"),
    (b"C\x01b", b"C\x01c"),
    (b"\x89", b"N"),
])  # fmt: skip
def test_damaged_arrays(file, change):
    data = pickle.dumps({"a": TREE["Conv_0"]["kernel"]}, 3)
    assert change[0] in data
    file.write_bytes(data.replace(*change))
    refused(file, "not described as one|order of bytes|truncated")


def test_arrays_without_content(file):
    """Made, but never given a shape."""
    name = tz.name("numpy.core.multiarray._reconstruct")
    arguments = b"(" + tz.name("numpy.ndarray") + b"K\x00\x85C\x01bt"
    file.write_bytes(b"\x80\x03}" + tz.text("a") + name + arguments + b"Rs.")
    refused(file, "has, as 'a', a _Array and not an array")


def test_other_files(file):
    file.write_bytes(b"\x80\x02}.")
    refused(file, "no pickle of arrays")
    assert not looks_like_array_pickle(b"PK\x03\x04")
    data = pickle.dumps(TREE, 3)
    file.write_bytes(data[: len(data) // 2])
    refused(file, "truncated")
    file.write_bytes(data + b"more")
    refused(file, "left over")
