import json
import os
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ldm_jax.core import reading
from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.safetensors_file import DTYPES, read_safetensors, write_safetensors

RNG = np.random.default_rng(0)
A = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
B = {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("safetensors")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.safetensors"


def raw(path, header, content=b"", length=None):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(header) if length is None else length
    path.write_bytes(struct.pack("<Q", length) + header + content)
    return path


def refused(path, match):
    with pytest.raises(FileFormatError, match=match) as error:
        read_safetensors(path)
    assert str(error.value).startswith(str(path))


def same(read, written):
    assert read.keys() == written.keys()
    for name, array in written.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == array.tobytes(), name


class TestRead:
    def test_what_the_library_wrote(self, file):
        tensors = {
            f"t.{dtype}": RNG.integers(0, 2, (3, 5)).astype(dtype)
            for dtype in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
        } | {"scalar": np.array(1.5), "empty": np.zeros((0, 3), np.float32)}
        tensors["bf16"] = RNG.normal(size=(3, 5)).astype(ml_dtypes.bfloat16)
        safetensors.numpy.save_file(tensors, file, {"format": "pt"})
        read, metadata = read_safetensors(file)
        same(read, tensors)
        assert metadata == {"format": "pt"}

    def test_is_neither_copied_nor_writable(self, file):
        write_safetensors(file, {"a": np.zeros(2**21, np.float32)})
        tracemalloc.start()
        try:
            read = read_safetensors(file)[0]["a"]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert read.nbytes == 2**23
        assert peak < 2**20
        with pytest.raises(ValueError, match="read-only"):
            read[0] = 1

    def test_headers_that_are_not_aligned(self, file):
        raw(file, b'{"a":%s }' % json.dumps(A).encode(), np.float32([1, 2]).tobytes())
        np.testing.assert_array_equal(read_safetensors(file)[0]["a"], [1, 2])

    def test_no_tensors(self, file):
        assert read_safetensors(raw(file, b"{}")) == ({}, {})

    @pytest.mark.parametrize(
        ("header", "content", "match"),
        [
            (b"[]", b"", "no header"),
            (b" {}", b"", "no header"),
            (b"{", b"", "not JSON"),
            (b"{}}", b"", "not JSON"),
            (b'{"a":\xff}', b"", "not JSON"),
            (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"", "nested too deeply"),
            (b'{"a":' + b"9" * 5000 + b"}", b"", "not JSON"),
            (b'{"a":{},"a":{}}', b"", "'a' twice"),
            (b'{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[0,1]}}', b"0", "twice"),
            ({"__metadata__": {"a": 1}}, b"", "__metadata__"),
            ({"__metadata__": []}, b"", "__metadata__"),
            ({"a": 1}, b"", "'a' is not described"),
            ({"a": {"dtype": "F32", "shape": [2]}}, b"", "'a' is not described"),
            ({"a": A | {"more": 1}}, b"", "'a' is not described"),
            ({"a": A | {"dtype": "F31"}}, b"", "'a' has the dtype 'F31'"),
            ({"a": A | {"dtype": ["F32"]}}, b"", "'a' has the dtype list"),
            ({"a": A | {"shape": 2}}, b"", "'a' has a shape"),
            ({"a": A | {"shape": [-2]}}, b"", "'a' has a shape"),
            ({"a": A | {"shape": [2.0]}}, b"", "'a' has a shape"),
            ({"a": A | {"shape": [True, 2]}}, b"", "'a' has a shape"),
            ({"a": A | {"shape": [1] * 40 + [2]}}, b"", "'a' has a shape"),
            ({"a": A | {"data_offsets": [0]}}, b"", "'a' has data_offsets"),
            ({"a": A | {"data_offsets": [-8, 0]}}, b"", "'a' has data_offsets"),
            ({"a": A | {"data_offsets": [8, 0]}}, bytes(8), "'a' lies outside"),
            ({"a": A}, bytes(7), "'a' lies outside.*truncated"),
            ({"a": A | {"data_offsets": [0, 2**64]}}, bytes(8), "'a' lies outside"),
            ({"a": A | {"shape": [3]}}, bytes(8), "'a' has 8 bytes"),
            ({"a": A | {"shape": [2**62, 2**62, 16]}}, bytes(8), "'a' has 8 bytes"),
            ({"a": A | {"shape": [2**63, 2]}}, bytes(8), "'a' has 8 bytes"),
            ({"a": A | {"shape": [10**4000] * 9}}, bytes(8), "'a' has 8 bytes.*huge"),
            ({"a": A | {"shape": [0, 2**62], "data_offsets": [0, 0]}}, b"", "no tensor has"),
            ({"a": A}, bytes(9), "1 bytes after"),
            ({"b": B}, bytes(11), "'b' leaves a hole"),
            ({"a": A, "b": B | {"data_offsets": [7, 10]}}, bytes(11), "'b' overlaps"),
            ({"a": A, "b": B | {"data_offsets": [9, 12]}}, bytes(12), "'b' leaves a hole"),
            ({"a": A, "b": A}, bytes(8), "'b' overlaps"),
            ({"a": {"dtype": "BOOL", "shape": [2], "data_offsets": [0, 2]}}, b"\1\2", "0 and 1"),
        ],
    )
    def test_refuses(self, file, header, content, match):
        refused(raw(file, header, content), match)

    @pytest.mark.parametrize("length", [3, 100, 10**8, 10**8 + 1, 2**63, 2**64 - 1])
    def test_lengths_that_lie(self, file, length):
        raw(file, b"{}", length=length)
        refused(file, "claims a header|not JSON")

    def test_header_over_the_limit(self, file):
        raw(file, b"{}")
        with file.open("r+b") as opened:
            opened.write(struct.pack("<Q", 100_000_001))
            opened.truncate(200_000_000)
        refused(file, "claims a header of 100000001 bytes")

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 9])
    def test_short_files(self, file, size):
        file.write_bytes((b"\x01" + bytes(7) + b"{")[:size])
        refused(file, "is empty|no header|not JSON|claims a header")

    def test_many_values_take_little_memory(self, file):
        """Ten megabytes of empty lists would become two hundred in Python."""
        raw(file, b'{"a":[' + b",".join([b"[]"] * 3_000_000) + b"]}")
        size = file.stat().st_size
        tracemalloc.start()
        try:
            refused(file, "more values")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2 * size

    def test_names_cannot_write_to_the_terminal(self, file):
        raw(file, {"\x1b[2J" + "a" * 1000: 1})
        with pytest.raises(FileFormatError) as error:
            read_safetensors(file)
        assert str(error.value).isprintable()
        assert len(str(error.value)) < len(str(file)) + 400


class TestWrite:
    def test_round_trip_of_every_dtype(self, file):
        tensors = {
            f"t.{name}": RNG.integers(0, 2, (2, 3)).astype(dtype) for name, dtype in DTYPES.items()
        } | {"scalar": np.float32(3).reshape(()), "empty": np.zeros((2, 0), np.float16)}
        write_safetensors(file, tensors, {"format": "pt", "ü": "ß\n"})
        read, metadata = read_safetensors(file)
        same(read, tensors)
        assert metadata == {"format": "pt", "ü": "ß\n"}
        assert all(array.flags.aligned for array in read.values())

    def test_the_library_reads_it(self, file):
        tensors = {
            "b": RNG.normal(size=(2, 3)).astype(np.float16),
            "ä.weight": RNG.normal(size=(4, 5)).astype(np.float32).T,
            "c": RNG.normal(size=(2,)).astype(ml_dtypes.bfloat16),
            "d": np.array(True),
        }
        write_safetensors(file, tensors, {"format": "pt"})
        same(safetensors.numpy.load_file(file), tensors)
        with safetensors.safe_open(file, "np") as opened:
            assert opened.metadata() == {"format": "pt"}

    def test_views_of_any_strides_and_byte_order(self, file):
        base = np.arange(24, dtype=np.float32).reshape(4, 6)
        tensors = {"t": base.T, "s": base[::-2, 1::2], "x": np.broadcast_to(base[0], (3, 6))}
        write_safetensors(file, tensors | {"big": base.astype(">f4")})
        same(read_safetensors(file)[0], tensors | {"big": base})

    def test_same_content_same_bytes(self, tmp_path):
        a, b = np.ones(3, np.float16), np.ones(3, np.float32)
        write_safetensors(tmp_path / "1", {"a": a, "b": b}, {"x": "1", "y": "2"})
        write_safetensors(tmp_path / "2", {"b": b, "a": a}, {"y": "2", "x": "1"})
        content = (tmp_path / "1").read_bytes()
        assert content == (tmp_path / "2").read_bytes()
        assert int.from_bytes(content[:8], "little") % 8 == 0

    def test_copies_one_tensor_at_most(self, file):
        tensors = {str(i): np.zeros((512, 512), np.float32).T for i in range(16)}
        tracemalloc.start()
        try:
            write_safetensors(file, tensors)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 3 * 2**20

    def test_replaces_the_file_that_it_reads(self, file):
        write_safetensors(file, {"a": np.arange(5)})
        write_safetensors(file, {"b": read_safetensors(file)[0]["a"][1:]})
        np.testing.assert_array_equal(read_safetensors(file)[0]["b"], [1, 2, 3, 4])

    @pytest.mark.parametrize(
        ("tensors", "metadata", "match"),
        [
            ({"a": np.zeros(2, "U3")}, None, "'a' of <U3"),
            ({"a": np.zeros(2, object)}, None, "'a' of object"),
            ({"__metadata__": np.zeros(2)}, None, "__metadata__"),
            ({"\ud800": np.zeros(2)}, None, "not text"),
            ({"a": np.zeros(2)}, {"a": "\udfff"}, "not text"),
        ],
    )
    def test_refuses_what_the_format_cannot_hold(self, file, tensors, metadata, match):
        with pytest.raises(FileFormatError, match=match):
            write_safetensors(file, tensors, metadata)
        assert list(file.parent.iterdir()) == []

    def test_failure_leaves_the_former_file_alone(self, file, monkeypatch):
        write_safetensors(file, {"a": np.arange(5)})
        before = file.read_bytes()

        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="the disk is full"):
            write_safetensors(file, {"a": np.arange(6)})
        assert file.read_bytes() == before
        assert list(file.parent.iterdir()) == [file]


def survives(path):
    """Reads what can be read, to the last byte; only one error is allowed."""
    try:
        tensors, _ = read_safetensors(path)
    except FileFormatError:
        return
    for array in tensors.values():
        array.tobytes()


fuzz = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F4"]),
        "shape": st.lists(st.integers(0, 4) | st.integers(-1, 2**70), max_size=3) | anything,
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2) | anything,
    }
)


class TestFuzz:
    @fuzz
    @given(content=st.binary(max_size=200), length=st.integers(0, 2**64 - 1) | st.integers(0, 99))
    def test_random_bytes(self, folder, content, length):
        survives(raw(folder / "random", b"{" + content, length=length))

    @fuzz
    @given(
        header=st.dictionaries(st.text(max_size=3) | st.just("__metadata__"), entries | anything),
        content=st.binary(max_size=16),
    )
    def test_any_header(self, folder, header, content):
        survives(raw(folder / "header", header, content))

    @fuzz
    @given(
        changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=3),
        cut=st.integers(0, 2**16) | st.none(),
    )
    def test_changed_bytes(self, folder, changes, cut):
        path = folder / "changed"
        write_safetensors(path, {"a": np.arange(3), "b": np.ones((2, 2), bool)}, {"format": "pt"})
        content = bytearray(path.read_bytes())
        for place, value in changes:
            content[place % len(content)] = value
        path.write_bytes(content if cut is None else content[: cut % len(content)])
        survives(path)

    @fuzz
    @given(
        tensors=st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            hnp.arrays(
                st.sampled_from(["f4", ">f2", "i8", "?", ml_dtypes.bfloat16]).map(np.dtype),
                hnp.array_shapes(min_dims=0, min_side=0, max_dims=3, max_side=3),
                elements=st.integers(0, 1),
            ),
            max_size=4,
        )
    )
    def test_round_trip(self, folder, tensors):
        path = folder / "round_trip"
        write_safetensors(path, tensors)
        native = {k: v.astype(v.dtype.newbyteorder("="), order="C") for k, v in tensors.items()}
        same(read_safetensors(path)[0], native)
        theirs = safetensors.numpy.load_file(path)
        same(theirs, native)


def test_the_limit_of_values_holds_a_large_model():
    """Two thousand tensors, as the largest Stable Diffusion has, use a fiftieth of it."""
    header = json.dumps({f"w{i}": A | {"shape": [1, 2, 3, 4]} for i in range(2000)}).encode()
    marks = sum(header.count(mark) for mark in (b",", b"[", b"{"))
    assert marks <= reading.MAX_JSON_MARKS / 50
