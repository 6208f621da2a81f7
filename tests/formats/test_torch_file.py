import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
import torch_zips as tz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.pickles import Placeholder
from ldm_jax.formats.torch_file import read_torch

RNG = np.random.default_rng(0)
SIX = np.arange(6, dtype=np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("torch_files")


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.ckpt"


def refused(path, match):
    with pytest.raises(FileFormatError, match=match) as error:
        read_torch(path)
    assert str(error.value).startswith(str(path))


class TestTensors:
    @pytest.mark.parametrize("dtype", tz.STORAGES, ids=str)
    def test_every_dtype_bit_for_bit(self, file, dtype):
        array = RNG.integers(0, 2, (3, 4)).astype(dtype)
        tz.write(file, tz.mapping({"a": tz.whole("0", array)}), {"0": array})
        read = read_torch(file)["a"]
        assert read.dtype == dtype
        assert read.shape == (3, 4)
        assert read.tobytes() == array.tobytes()

    def test_newer_dtypes_name_themselves(self, file):
        array = np.array([1.5, -2], ml_dtypes.float8_e4m3fn)
        made = tz.call(
            "torch._utils._rebuild_tensor_v3", tz.storage("0", 2, "torch.storage.UntypedStorage"),
            tz.number(0), tz.numbers([2]), tz.numbers([1]), b"\x89",
            tz.call("collections.OrderedDict"), tz.name("torch.float8_e4m3fn"),
        )  # fmt: skip
        tz.write(file, tz.mapping({"a": made}), {"0": array})
        np.testing.assert_array_equal(read_torch(file)["a"], array, strict=True)

    def test_views_and_transposes(self, file):
        made = {
            "transposed": tz.tensor("0", 6, (3, 2), (1, 3)),
            "row": tz.tensor("0", 6, (3,), (1,), offset=3),
            "scalar": tz.tensor("0", 6, (), (), offset=5),
            "expanded": tz.tensor("0", 6, (2, 3), (0, 1)),
            "empty": tz.tensor("1", 0, (0, 4), (4, 1)),
        }
        tz.write(file, tz.mapping(made, ordered=True), {"0": SIX, "1": b""})
        read = read_torch(file)
        assert list(read) == list(made)
        np.testing.assert_array_equal(read["transposed"], SIX.reshape(2, 3).T, strict=True)
        np.testing.assert_array_equal(read["row"], SIX[3:], strict=True)
        np.testing.assert_array_equal(read["scalar"], SIX[5:].reshape(()), strict=True)
        np.testing.assert_array_equal(read["expanded"], [[0, 1, 2], [0, 1, 2]])
        assert read["empty"].shape == (0, 4)

    def test_are_not_writable(self, file):
        tz.write(file, tz.mapping({"a": tz.whole("0", SIX)}), {"0": SIX})
        with pytest.raises(ValueError, match="read-only"):
            read_torch(file)["a"][0] = 1

    def test_are_not_copied(self, file):
        array = np.zeros(2**21, np.float32)
        tz.write(file, tz.mapping({"a": tz.whole("0", array)}), {"0": array})
        tracemalloc.start()
        try:
            read = read_torch(file)["a"]
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert read.nbytes == 2**23
        assert peak < 2**20

    def test_parameters(self, file):
        made = tz.call(
            "torch._utils._rebuild_parameter", tz.whole("0", SIX), b"\x88",
            tz.call("collections.OrderedDict"),
        )  # fmt: skip
        tz.write(file, tz.mapping({"a": made}), {"0": SIX})
        np.testing.assert_array_equal(read_torch(file)["a"], SIX, strict=True)

    @pytest.mark.parametrize(
        ("made", "match"),
        [
            (tz.tensor("0", 6, (7,), (1,)), "6 are stored"),
            (tz.tensor("0", 6, (6,), (1,), offset=1), "6 are stored"),
            (tz.tensor("0", 6, (6,), (1,), offset=-1), "whole numbers"),
            (tz.tensor("0", 6, (2,), (-1,), offset=3), "whole numbers"),
            (tz.tensor("0", 6, (-2,), (1,)), "whole numbers"),
            (tz.tensor("0", 6, (2, 3), (1,)), "whole numbers"),
            (tz.tensor("0", 6, (2,), (2**62,)), "6 are stored"),
            (tz.tensor("0", 6, (2**40, 2**40), (0, 0)), "shape that no tensor has"),
            (tz.tensor("0", 6, (0, 2**62), (1, 1)), "shape that no tensor has"),
            (tz.tensor("0", 6, (1,) * 33, (1,) * 33), "shape that no tensor has"),
            (tz.tensor("0", 6, (1000,), (0,)), "clone"),
            (tz.tensor("0", 7, (6,), (1,)), "claims 7 elements"),
            (tz.tensor("0", -6, (6,), (1,)), "claims -6 elements"),
            (tz.tensor("0", 6, (6,), (1,), kind="torch.DoubleStorage"), "claims 6 elements"),
            (tz.tensor("1", 6, (6,), (1,)), "data/'1' is missing"),
            (tz.tensor("../0", 6, (6,), (1,)), "is missing"),
            (tz.tensor("0", 24, (24,), (1,), kind="torch.BoolStorage"), "other than 0 and 1"),
            (tz.tensor("0", 6, (6,), (1,), kind="torch.QInt8Storage"), "torch.QInt8Storage"),
            (tz.call("torch._utils._rebuild_tensor_v2"), "not described as one"),
            (tz.call("torch._utils._rebuild_parameter", b"N", b"N", b"N"), "not described as one"),
        ],
    )
    def test_out_of_bounds(self, file, made, match):
        tz.write(file, tz.mapping({"a": made}), {"0": SIX})
        refused(file, match)

    def test_sharing_is_bounded(self, file):
        """A thousand names for one large storage would become a thousand copies later."""
        array = np.zeros(1000, np.float32)
        made = {f"w{i}": tz.whole("0", array) for i in range(1000)}
        tz.write(file, tz.mapping(made), {"0": array})
        refused(file, "claim more than")

    def test_lazy_conjugates_are_refused(self, file):
        array = np.ones(2, np.complex64)
        made = tz.call(
            "torch._utils._rebuild_tensor_v2", tz.storage("0", 2, "torch.ComplexFloatStorage"),
            tz.number(0), tz.numbers([2]), tz.numbers([1]), b"\x89",
            tz.call("collections.OrderedDict"), tz.mapping({"conj": b"\x88"}),
        )  # fmt: skip
        tz.write(file, made, {"0": array})
        refused(file, "resolve_conj")

    @pytest.mark.parametrize("at", range(8))
    def test_tensors_where_none_belong(self, file, at):
        """In every place of a tensor's description, and of its storage's."""
        array = tz.whole("0", SIX)
        parts = [
            tz.storage("0", 6), tz.number(0), tz.numbers([6]), tz.numbers([1]), b"\x89",
            tz.call("collections.OrderedDict"), tz.mapping({}),
        ]  # fmt: skip
        if at < len(parts):
            parts[at] = array
        else:
            parts[0] = tz.storage("0", 6, word=array)
        made = tz.call("torch._utils._rebuild_tensor_v2", *parts)
        tz.write(file, tz.mapping({"a": made}), {"0": SIX})
        if at in (4, 5):  # whether it is trained, and hooks: no part of what is read
            np.testing.assert_array_equal(read_torch(file)["a"], SIX)
        else:
            refused(file, "not described as one|whole numbers")


def lightning() -> bytes:
    """What Lightning puts beside the weights."""
    scalar = tz.call(
        "numpy.core.multiarray.scalar",
        tz.call("numpy.dtype", tz.text("f8"), b"\x89", b"\x88"),
        tz.call("_codecs.encode", tz.text("12345678"), tz.text("latin1")),
    )
    callback = tz.name("pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint")
    settings_ = tz.name("omegaconf.dictconfig.DictConfig") + b")\x81" + tz.mapping({}) + b"b"
    attributes = tz.name("pytorch_lightning.utilities.parsing.AttributeDict") + b")\x81"
    attributes += b"(" + tz.text("lr") + b"G" + struct.pack(">d", 1e-4) + b"u"
    metadata = b"}" + tz.text("_metadata") + tz.mapping({}, ordered=True) + b"s"
    return tz.mapping(
        {
            "epoch": tz.number(3),
            "state_dict": tz.mapping({"w": tz.whole("0", SIX)}, ordered=True) + metadata + b"b",
            "callbacks": b"}(" + callback + tz.mapping({"best_model_score": scalar}) + b"u",
            "hyper_parameters": settings_,
            "more": attributes,
            "lr_schedulers": b"](N\x88\x89e",
        }
    )


def test_structure_of_a_lightning_checkpoint(file):
    tz.write(file, lightning(), {"0": SIX})
    read = read_torch(file)
    assert read["epoch"] == 3
    assert read["lr_schedulers"] == [None, True, False]
    np.testing.assert_array_equal(read["state_dict"]["w"], SIX, strict=True)
    ((callback, content),) = read["callbacks"].items()
    assert isinstance(callback, Placeholder)
    assert callback.name.endswith(".ModelCheckpoint")
    assert content["best_model_score"].name == "numpy.core.multiarray.scalar"
    assert read["hyper_parameters"].name == "omegaconf.dictconfig.DictConfig"


class TestZip:
    def test_compressed(self, file):
        tz.write(file, tz.text("a" * 10**6), compression=zipfile.ZIP_DEFLATED)
        refused(file, "compressed")

    def test_another_zip(self, file):
        with file.open("wb") as opened:
            np.savez(opened, a=SIX)
        refused(file, "without the one data.pkl")

    def test_script(self, file):
        tz.write(file, b"N", others={"constants.pkl": b"\x80\x02)."})
        refused(file, "TorchScript")

    def test_byte_order(self, file):
        tz.write(file, b"N", others={"byteorder": b"big"})
        refused(file, "byteorder is not little")

    def test_huge_list_of_contents(self, file):
        with zipfile.ZipFile(file, "w") as archive:
            for i in range(50):
                archive.writestr(f"{i:060000}", b"")
            archive.writestr("archive/data.pkl", b"\x80\x02N.")
        assert read_torch(file) is None
        with zipfile.ZipFile(file, "a") as archive:
            for i in range(50, 100):
                archive.writestr(f"{i:060000}", b"")
        refused(file, "list of contents exceeds")

    def test_overlapping_entries(self, file):
        """The list of contents gives both storages the place of the first."""
        made = {"a": tz.whole("0", SIX), "b": tz.whole("1", SIX)}
        tz.write(file, tz.mapping(made), {"0": SIX, "1": SIX})
        with zipfile.ZipFile(file) as archive:
            first, second = (archive.getinfo(f"archive/data/{key}").header_offset for key in "01")
        content = bytearray(file.read_bytes())
        entry = content.rindex(b"archive/data/1") - 46
        assert struct.unpack_from("<L", content, entry + 42) == (second,)
        struct.pack_into("<L", content, entry + 42, first)
        file.write_bytes(content)
        refused(file, "not where the zip says")

    @pytest.mark.parametrize("size", [20, 28, 10**6, 2**32 - 2])
    def test_sizes_that_lie(self, file, size):
        tz.write(file, tz.mapping({"a": tz.whole("0", SIX)}), {"0": SIX})
        content = bytearray(file.read_bytes())
        entry = content.rindex(b"archive/data/0") - 46
        struct.pack_into("<2L", content, entry + 20, size, size)
        file.write_bytes(content)
        refused(file, "lies about its size|not where the zip says|claims 6 elements")

    def test_data_behind_the_list_of_contents(self, file):
        tz.write(file, tz.mapping({"a": tz.whole("0", SIX)}), {"0": SIX})
        content = bytearray(file.read_bytes())
        entry = content.rindex(b"archive/data/0") - 46
        struct.pack_into("<L", content, entry + 42, entry)
        file.write_bytes(content)
        refused(file, "not where the zip says")

    @pytest.mark.parametrize("keep", [1, 4, 30, 0.5, -1, -22, -100])
    def test_truncated(self, file, keep):
        tz.write(file, tz.mapping({"a": tz.whole("0", SIX)}), {"0": SIX})
        content = file.read_bytes()
        file.write_bytes(content[: int(keep * len(content)) if keep == 0.5 else keep])
        refused(file, "zip|truncated")


def survives(path):
    """Reads what can be read, to the last byte; only one error is allowed."""
    try:
        pending = [read_torch(path)]
    except FileFormatError:
        return
    while pending:
        value = pending.pop()
        if isinstance(value, np.ndarray):
            value.tobytes()
        elif isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, list | tuple):
            pending.extend(value)


fuzz = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class TestFuzz:
    @fuzz
    @given(
        content=st.binary(max_size=300), start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02"])
    )
    def test_random_bytes(self, folder, content, start):
        path = folder / "random"
        path.write_bytes(start + content)
        survives(path)

    @fuzz
    @given(
        changes=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), max_size=4),
        cut=st.integers(0, 2**16) | st.none(),
        flip=st.booleans(),
    )
    def test_changed_bytes(self, folder, changes, cut, flip):
        path = tz.write(folder / "changed", lightning(), {"0": SIX})
        content = bytearray(path.read_bytes())
        for place, value in changes:
            place %= len(content)
            content[place] = content[place] ^ (1 << value % 8) if flip else value
        path.write_bytes(content if cut is None else content[: cut % len(content)])
        survives(path)

    @fuzz
    @given(data=st.data())
    def test_any_instructions(self, folder, data):
        touched = folder / "touched"
        pieces = [
            *(bytes([code]) for code in range(256)), tz.name("os.system"), tz.text("state_dict"),
            tz.text(f"touch {touched}"), tz.name("torch._utils._rebuild_tensor_v2"),
            tz.name("collections.OrderedDict"), tz.storage("0", 6), tz.number(2), tz.numbers([3]),
            tz.whole("0", SIX), b"(", b"t", b"}", b"]", b")", b"R", b"b", b"\x81", b"q\x00",
            b"h\x00", tz.name("pytorch_lightning.x"), b"u", b"e", b"s", b"a",
        ]  # fmt: skip
        likely = st.sampled_from(pieces[256:])
        content = b"".join(
            data.draw(st.lists(likely | likely | st.sampled_from(pieces), max_size=30))
        )
        survives(tz.write(folder / "instructions", content, {"0": SIX}))
        assert not touched.exists()

    @fuzz
    @given(
        size=st.integers(-1, 2**65) | st.just(6),
        offset=st.integers(-(2**65), 2**65) | st.integers(0, 6),
        shape=st.lists(st.integers(-1, 4) | st.integers(0, 2**65), max_size=4),
        strides=st.lists(st.integers(-1, 4) | st.integers(0, 2**65), max_size=4),
        kind=st.sampled_from(sorted(tz.STORAGES.values())),
    )
    def test_any_shapes(self, folder, size, offset, shape, strides, kind):
        made = tz.tensor("0", size, shape, strides, offset=offset, kind=f"torch.{kind}")
        survives(tz.write(folder / "shapes", made, {"0": SIX}))
