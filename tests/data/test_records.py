import functools

import pytest

from ldm_jax.data import records
from ldm_jax.data.records import Records, write_records
from ldm_jax.data.sources import DataError


@pytest.fixture
def files(tmp_path):
    for name, numbers in (("a", range(3)), ("b", range(3, 4)), ("c", range(4, 9))):
        write_records(tmp_path / name, (str(n).encode() for n in numbers))
    return [tmp_path / name for name in "abc"]


def test_records_of_all_files_one_after_the_other(files):
    for counts in (None, [3, 1, 5]):
        found = Records(files, "copy it", counts)
        assert len(found) == 9 and [found[n] for n in (8, 0, 3, 4)] == [b"8", b"0", b"3", b"4"]
        assert [*found] == [str(n).encode() for n in range(9)]
        assert found.named(5) == f"{files[2]}, record 1 (from 0)"


def test_so_many_files_are_open_at_once(files, monkeypatch):
    opened = functools.lru_cache(2)(records.opened.__wrapped__)
    monkeypatch.setattr(records, "opened", opened)
    one, other = (Records(files, "copy it", [3, 1, 5]) for _ in range(2))
    assert [one[n] for n in (0, 3, 8, 0)] + [other[n] for n in (3, 8)] == [
        b"0", b"3", b"8", b"0", b"3", b"8"
    ]  # fmt: skip
    assert opened.cache_info().currsize == 2


def test_damaged_files_are_named(files):
    files[1].write_bytes(files[1].read_bytes()[:-1])
    found = Records(files, "copy it", [3, 1, 5])
    assert found[0] == b"0"
    with pytest.raises(DataError, match=r"b is missing or damaged \(0 records .* 1\); copy it"):
        found[3]
    files[2].unlink()
    with pytest.raises(DataError, match=r"c is missing or damaged \(.*\); copy it"):
        found[5]
    with pytest.raises(DataError, match=r"c is missing or damaged"):
        Records(files[2:], "copy it")
