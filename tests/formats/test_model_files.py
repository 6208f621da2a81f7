import json

import numpy as np
import pytest
import torch_zips as tz

from ldm_jax.core.reading import FileFormatError
from ldm_jax.formats.model_files import read_sharded, read_tensors
from ldm_jax.formats.safetensors_file import write_safetensors

SIX = np.arange(6, dtype=np.float32)
W = tz.whole("0", SIX)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "model.bin"


def refused(read, path, match):
    with pytest.raises(FileFormatError, match=match):
        read(path)


class TestReadTensors:
    def test_tells_by_content(self, file):
        """Many files of one kind lie about under the suffix of the other."""
        tz.write(file, tz.mapping({"a": W}), {"0": SIX})
        np.testing.assert_array_equal(read_tensors(file)["a"], SIX, strict=True)
        write_safetensors(file, {"a": SIX})
        np.testing.assert_array_equal(read_tensors(file)["a"], SIX, strict=True)

    def test_takes_the_state_dict(self, file):
        made = {
            "epoch": tz.number(3),
            "state_dict": tz.mapping({"a": W}, ordered=True),
            "optimizer_states": b"]" + tz.mapping({"exp_avg": W}) + b"a",
        }
        tz.write(file, tz.mapping(made), {"0": SIX})
        read = read_tensors(file)
        assert read.keys() == {"a"}
        np.testing.assert_array_equal(read["a"], SIX, strict=True)

    @pytest.mark.parametrize(
        ("value", "match"),
        [
            (W, "holds a ndarray"),
            (b"]" + W + b"a", "holds a list"),
            (b"}" + tz.number(768) + W + b"s", "a name that is a int"),
            (tz.mapping({"a": W, "n": tz.number(1)}), "as 'n', a int and not a tensor"),
            (tz.mapping({"a": W, "n": b"N"}), "as 'n', a NoneType"),
            (tz.mapping({"a": W, "n": tz.mapping({})}), "as 'n', a dict"),
            (tz.mapping({"n": tz.storage("0", 6)}), "as 'n', a "),
            (tz.mapping({"n": tz.name("omegaconf.X")}), "as 'n', a Placeholder.'omegaconf.X'"),
            (tz.mapping({"state_dict": tz.mapping({"n": tz.call("pytorch_lightning.os.system")})}),
             "its state_dict has, as 'n', a Placeholder.'pytorch_lightning.os.system'"),
            (tz.mapping({"state_dict": tz.mapping({"a": W}), "b": W}), "beside its state_d"),
            (tz.mapping({"state_dict": b"]"}), "it has, as 'state_dict', a list"),
        ],
    )  # fmt: skip
    def test_refuses_what_is_no_state_dict(self, file, value, match):
        tz.write(file, value, {"0": SIX})
        refused(read_tensors, file, match)

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"", "is empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
            (b"<!DOCTYPE html><html>", "is a page"),
            (b'{"weight_map": {}}', "an index"),
            (b"a text", "neither a safetensors file nor one of torch"),
            (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "its pickle is truncated"),
            (bytes(257) + b"ustar" + bytes(300), "is a tar"),
            (b"\xff" * 8 + b"{}", "claims a header"),
        ],
    )
    def test_other_files(self, file, content, match):
        file.write_bytes(content)
        refused(read_tensors, file, match)

    def test_missing_files_and_folders(self, tmp_path):
        refused(read_tensors, tmp_path / "none", "none: does not exist")
        refused(read_tensors, tmp_path, "is a folder")


class TestReadSharded:
    @pytest.fixture
    def index(self, tmp_path):
        write_safetensors(tmp_path / "1.safetensors", {"a": SIX, "b": 2 * SIX})
        tz.write(tmp_path / "2.bin", tz.mapping({"c": W}), {"0": SIX})
        self.path = tmp_path / "model.safetensors.index.json"
        self.map = {"c": "2.bin", "a": "1.safetensors", "b": "1.safetensors"}
        self.save()
        return self.path

    def save(self, **changes):
        content = {"metadata": {"total_size": 72}, "weight_map": self.map | changes}
        self.path.write_text(json.dumps(content))

    def test_reads_all(self, index):
        read = read_sharded(index)
        assert list(read) == ["c", "a", "b"]
        np.testing.assert_array_equal(read["b"], 2 * SIX, strict=True)

    def test_shards_that_are_links(self, index, tmp_path):
        """Caches of hubs link to files elsewhere."""
        (tmp_path / "blobs").mkdir()
        (tmp_path / "1.safetensors").rename(tmp_path / "blobs" / "x")
        (tmp_path / "1.safetensors").symlink_to("blobs/x")
        assert read_sharded(index).keys() == {"a", "b", "c"}

    def test_missing_shard(self, index):
        (index.parent / "2.bin").unlink()
        refused(read_sharded, index, "2.bin: does not exist")

    def test_missing_tensor(self, index):
        self.save(d="2.bin")
        refused(read_sharded, index, "2.bin: lacks 'd'")

    def test_tensor_in_another_shard(self, index):
        self.save(a="2.bin")
        refused(read_sharded, index, "2.bin: lacks 'a'")

    def test_tensor_that_is_not_told_of(self, index):
        del self.map["a"]
        self.save()
        refused(read_sharded, index, "1.safetensors: has 'a', not told of")

    @pytest.mark.parametrize(
        "name", ["../x", "/etc/passwd", "a/b", "a\\b", "..", ".", "", "a\0b", "\x1b[2J", 3, None]
    )
    def test_files_elsewhere(self, index, name):
        self.save(a=name)
        refused(read_sharded, index, "'a' into .* not the plain name")

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            ("[]", "not a JSON object"),
            ("{", "not JSON"),
            ("{}", "no weight_map"),
            ('{"weight_map": {}}', "no weight_map"),
            ('{"weight_map": []}', "no weight_map"),
            ('{"weight_map": {"a": "x", "a": "y"}}', "names 'a' twice"),
        ],
    )
    def test_damaged_index(self, tmp_path, content, match):
        path = tmp_path / "index.json"
        path.write_text(content)
        refused(read_sharded, path, match)
