"""Files of torch before 1.6, assembled without torch: read right, and hostile ones refused."""

import io
import tarfile

import numpy as np
import pytest
import torch_zips as tz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.model_files import read_tensors
from ldm_jax.formats.torch_file import read_torch

SIX = np.arange(6, dtype=np.float32)
WHOLE = tz.mapping({"a": tz.whole("0", SIX)})


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.pth"


def refused(path, match):
    with pytest.raises(FileFormatError, match=match) as error:
        read_torch(path)
    assert str(error.value).startswith(str(path))


def test_tensors_of_several_storages(file):
    """Storages lie in the order of their keys, not of their first use; tensors may share them."""
    four = np.arange(4)
    made = {
        "last": tz.whole("1", four), "first": tz.whole("0", SIX),
        "transposed": tz.tensor("0", 6, (3, 2), (1, 3)),
        "row": tz.tensor("0", 6, (3,), (1,), offset=3),
    }  # fmt: skip
    tz.write_old(file, tz.mapping(made, ordered=True), {"0": SIX, "1": four})
    read = read_tensors(file)
    assert list(read) == list(made)
    np.testing.assert_array_equal(read["last"], four, strict=True)
    np.testing.assert_array_equal(read["first"], SIX, strict=True)
    np.testing.assert_array_equal(read["transposed"], SIX.reshape(2, 3).T, strict=True)
    np.testing.assert_array_equal(read["row"], SIX[3:], strict=True)
    assert np.shares_memory(read["first"], read["row"])
    assert not read["first"].flags.writeable


def test_a_state_dict_beside_other_things(file):
    saved = tz.mapping({"state_dict": WHOLE, "epoch": tz.number(3)})
    tz.write_old(file, saved, {"0": SIX})
    np.testing.assert_array_equal(read_tensors(file)["a"], SIX, strict=True)


def storage_with(*more, word=None):
    made = tz.call(
        "torch._utils._rebuild_tensor_v2",
        tz.storage("0", 6, "torch.FloatStorage", *more, word=word), tz.number(0),
        tz.numbers([6]), tz.numbers([1]), b"\x89", tz.call("collections.OrderedDict"),
    )  # fmt: skip
    return tz.mapping({"a": made})


def test_the_place_of_a_view_may_be_empty(file):
    tz.write_old(file, storage_with(b"N"), {"0": SIX})
    np.testing.assert_array_equal(read_torch(file)["a"], SIX, strict=True)
    view = tz.many(tz.text("1"), tz.number(0), tz.number(6))
    tz.write_old(file, storage_with(view), {"0": SIX})
    refused(file, "a storage is a view of another; clone")


TWICE = tz.mapping({"a": tz.whole("0", SIX), "b": tz.tensor("0", 5, (5,), (1,))})


@pytest.mark.parametrize(
    ("value", "options", "match"),
    [
        (WHOLE, {"magic": 3}, "a bare pickle, not a file that torch.save wrote"),
        (WHOLE, {"version": 1000}, "of another version"),
        (WHOLE, {"machine": [1]}, "of another version"),
        (WHOLE, {"machine": {"little_endian": False}}, "byteorder is not little"),
        (WHOLE, {"machine": {}}, "byteorder is not little"),
        (WHOLE, {"keys": {}}, "its list of storages is not that of its tensors"),
        (WHOLE, {"keys": ["1"]}, "its list of storages is not that of its tensors"),
        (WHOLE, {"keys": ["0", "0"]}, "its list of storages is not that of its tensors"),
        (WHOLE, {"keys": [0]}, "its list of storages is not that of its tensors"),
        (WHOLE, {"counts": {"0": 7}}, "claims 6 elements, but 7 are stored"),
        (WHOLE, {"counts": {"0": -1}}, "claims 6 elements, but -1 are stored"),
        (WHOLE, {"after": b"more"}, "4 bytes after its last storage"),
        (TWICE, {}, "is described in two ways"),
        (tz.mapping({"a": tz.tensor("0", -6, (6,), (1,))}), {}, "claims -6 elements"),
        (tz.mapping({"a": tz.tensor("0", 2**70, (6,), (1,))}), {}, "ends within the storage"),
        (tz.mapping({"a": tz.tensor("0", 6, (7,), (1,))}), {}, "6 are stored"),
        (tz.mapping({"a": tz.tensor("0", 6, (1000,), (0,))}), {}, "clone"),
        (tz.call("os.system", tz.text("touch here")), {}, "asks for 'os.system'"),
        (storage_with(word=tz.whole("0", SIX)), {}, "a storage is not described as one"),
    ],
)
def test_damaged_or_hostile(file, value, options, match):
    tz.write_old(file, value, {"0": SIX}, **options)
    refused(file, match)


def test_truncated_anywhere(file):
    content = tz.write_old(file, WHOLE, {"0": SIX}).read_bytes()
    for length in range(1, len(content)):
        file.write_bytes(content[:length])
        refused(file, "truncated|damaged|bare pickle|ends within|not a zip")


def test_tars_are_refused_with_advice(file):
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ("pickle", "tensors", "storages"):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    refused(file, r"is a tar.*torch.save\(torch.load\(old")
    with pytest.raises(FileFormatError, match="is a tar"):
        read_tensors(file)


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4))
def test_changed_bytes(file, changes):
    """Reads to the last byte, or refuses; only one error is allowed."""
    content = bytearray(tz.write_old(file, WHOLE, {"0": SIX}).read_bytes())
    for place, value in changes:
        content[place % len(content)] = value
    file.write_bytes(content)
    try:
        read = read_torch(file)
    except FileFormatError:
        return
    for value in read.values() if isinstance(read, dict) else ():
        getattr(value, "tobytes", bytes)()
