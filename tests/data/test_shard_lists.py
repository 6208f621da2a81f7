from dataclasses import dataclass

import pytest

from ldm_jax.data.shard_lists import (
    NothingInCommon,
    Shard,
    fingerprint,
    note_shard,
    noted,
    read_list,
    write_list,
)
from ldm_jax.data.sources import DataError

ONE, TWO = Shard("a", 3, 4, "x"), Shard("b", 2, 4, "y")


@dataclass(frozen=True)
class _Common:
    names: tuple[str, ...]


def test_a_list_is_read_as_it_was_written(tmp_path):
    for common in (NothingInCommon(), _Common(("é", "b"))):
        write_list(tmp_path, [ONE, TWO], common)
        assert read_list(tmp_path, Shard, type(common), "") == ([ONE, TWO], common)
    with pytest.raises(DataError, match=r"index.json is damaged \(names is not what it .* again"):
        read_list(tmp_path, Shard, NothingInCommon, "again")
    with pytest.raises(DataError, match=r"none/index.json: does not exist; again"):
        read_list(tmp_path / "none", Shard, _Common, "again")


def test_a_shard_is_there_while_it_has_its_size(tmp_path):
    for one in (ONE, TWO):
        note_shard(tmp_path, one)
        (tmp_path / one.file).write_bytes(b"1234")
    assert noted(tmp_path, ["a", "b", "c"], Shard, tmp_path) == {"a": ONE, "b": TWO}
    (tmp_path / "b").write_bytes(b"123")
    assert noted(tmp_path, ["a", "b", "c"], Shard, tmp_path) == {"a": ONE}
    (tmp_path / "notes/a.json").write_text('{"file": "a"}')
    with pytest.raises(DataError, match="a.json is damaged .bytes, examples, sha256 is not"):
        noted(tmp_path, ["a"], Shard, tmp_path)


def test_the_fingerprint_tells_contents_and_order():
    same = fingerprint([Shard("other", 3, 5, "x"), TWO], ("a",))
    assert same == fingerprint([ONE, TWO], ("a",))
    others = [fingerprint([TWO, ONE], ("a",)), fingerprint([ONE, TWO], ("b",)), fingerprint([ONE])]
    assert len({same, *others}) == 4
