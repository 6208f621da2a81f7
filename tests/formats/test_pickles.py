import pickle
import tracemalloc

import pytest
import torch_zips as tz

from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats import pickles
from ldm_jax.formats.torch_file import read_torch


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.ckpt"


def refused(path, match):
    with pytest.raises(FileFormatError, match=match) as error:
        read_torch(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_values(file, protocol):
    value = {
        "a": [1, -2, 2**40, 1.5, True, None, "ü" * 300],
        # Protocol 2 has no bytes of its own.
        "b": [b"\x00\xff", b"\xff" * 300] if protocol > 2 else [],
        3: {"t": (), "u": (1,), "v": (1, 2), "w": (1, 2, 3), "x": (1, 2, 3, (4,))},
    }
    tz.write(file, pickle.dumps(value, protocol)[:-1])
    assert read_torch(file) == value


HOSTILE = ["os.system", "posix.system", "builtins.eval", "builtins.getattr", "builtins.exec",
           "subprocess.Popen", "torch.load", "torch.hub.load", "numpy.load", "pickle.loads",
           "torch._utils._rebuild_sparse_tensor", "torch.jit.load", "importlib.import_module",
           "functools.partial", "operator.attrgetter", "numpy.testing._private.utils.runstring",
           "torch.serialization.os.system", "collections.deque"]  # fmt: skip


class TestHostile:
    @pytest.mark.parametrize("full", HOSTILE)
    @pytest.mark.parametrize("where", ["call", "value", "key", "stack", "class", "id"])
    def test_names_are_refused_by_name(self, file, tmp_path, full, where):
        touched = tmp_path / "touched"
        module, _, last = full.rpartition(".")
        argument = tz.text(f"touch {touched}")
        stacked = tz.text(module) + tz.text(last) + b"\x93" + tz.many(argument) + b"R"
        value = {
            "call": tz.call(full, argument),
            "value": tz.mapping({"state_dict": tz.mapping({"w": tz.name(full)})}),
            "key": b"}" + tz.name(full) + b"Ns",
            "stack": stacked,
            "class": tz.name(full) + tz.many(argument) + b"\x81",
            "id": tz.name(full) + b"Q",
        }[where]
        tz.write(file, value)
        refused(file, f"asks for '{full}'")
        assert not touched.exists()

    @pytest.mark.parametrize(
        ("value", "match"),
        [
            (b"(S'echo'\nios\nsystem\n", "STRING"),
            (b"(" + tz.text("echo") + b"ios\nsystem\n", "INST"),
            (b"(" + tz.name("torch.Size") + b"o", "OBJ"),
            (b"\x82\x01", "EXT1"),
            (b"\x83\x01\x00", "EXT2"),
            (b"\x84\x01\x00\x00\x00", "EXT4"),
            (b"P0\n", "PERSID"),
            (b"\x97", "NEXT_BUFFER"),
            (b"\x8b\xff\xff\xff\x7f", "LONG4"),
            (b"I01\n", "INT"),
            (b"]0", "POP"),
            (b"\xff", "no instruction"),
            (b"\x80\x06N", "protocol 6"),
            (b"X\xff\xff\xff\xffabc", "damaged or truncated"),
            (b"\x8e" + b"\xff" * 8 + b"abc", "damaged or truncated"),
            (b"\x95" + b"\xff" * 7, "truncated"),
            (b"cos\nsystem", "truncated"),
            (b"cos", "truncated"),
            (b"NN", "left over"),
            (b"(N", "left over"),
            (b"", "lacks its operands"),
            (b"t", "lacks its mark"),
            (b"a", "lacks its operands"),
            (b"NNa", "APPEND does not fit"),
            (b"}(Nu", "SETITEMS does not fit"),
            (b"}NNsNNs", "does not fit|twice"),
            (b"}" + (tz.text("a") + b"Ns") * 2, "'a' twice"),
            (b"h\x01", "not memorized"),
            (b"})Ns", "a tuple as the key"),
            (b"}" + tz.number(2**61 - 1) + b"Ns", "a int as the key"),
            (b"]}b", "state of a list"),
            (tz.name("collections.OrderedDict") + b"}b", "state of a Placeholder"),
            (tz.name("torch.FloatStorage") + b")R", "makes an object of 'torch.FloatStorage'"),
            (tz.name("collections.OrderedDict") + b")\x81", "makes an object of"),
            (tz.name("torch.float32") + b")}\x92", "makes an object of 'torch.float32'"),
            (tz.text("os.system") + b")R", "calls a str"),
            (tz.name("collections.OrderedDict") + b"]R", "calls a"),
            (tz.call("collections.OrderedDict", b"]"), "unknown way"),
            (tz.number(1) + tz.number(2) + b"\x93", "a name is not text"),
            (tz.text("storage") + b"Q", "storage is not described"),
            (b"]" * 100 + b"a" * 99, "nested more than"),
            (b"]q\x00h\x00a", "nested more than"),
        ],
    )
    def test_instructions_are_refused(self, file, value, match):
        tz.write(file, value)
        refused(file, match)

    def test_ten_to_the_twentieth_values(self, file):
        value = b"]q\x00"
        for level in range(20):
            value = b"](" + value + b"h%c" % level * 9 + b"eq%c" % (level + 1)
        tz.write(file, value)
        refused(file, "more than 2000000 values")

    def test_deep_tuples_of_tuples(self, file):
        tz.write(file, b")" + b"\x85" * 50_000)
        refused(file, "nested more than")

    def test_too_many_instructions(self, file, monkeypatch):
        monkeypatch.setattr(pickles, "MAX_OPCODES", 1000)
        tz.write(file, b"](" + b"]" * 1000 + b"e")
        refused(file, "more than 1000 instructions")

    def test_memo_numbers_take_no_memory(self, file):
        tz.write(file, b"Nr\xff\xff\xff\xff")
        tracemalloc.start()
        try:
            assert read_torch(file) is None
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 2**20

    def test_oversized_pickle(self, file, monkeypatch):
        monkeypatch.setattr(pickles, "MAX_BYTES", 1000)
        tz.write(file, tz.text("a" * 2000))
        refused(file, "more than 1000 bytes")
