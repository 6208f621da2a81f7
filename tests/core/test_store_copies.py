"""Copies of what lies in stores: within a limit, and never one that is in use."""

import os
import subprocess
import sys
from functools import partial

import pytest

from ldm_jax.core import store_copies
from ldm_jax.core.store_copies import NoRoom, check_room, copied, limit


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LDM_JAX_STORE_CACHE_GB", "3e-7")


def copy(told, size=100):
    """The copy of an object of so many bytes, and whether it was fetched."""
    fetched = []

    def fetch(draft):
        draft.write_bytes(told.encode() * size)
        fetched.append(draft)

    return copied(told, "name", lambda: size, fetch), bool(fetched)


def end_process():
    """What another process finds: this one's list is that of one that has ended."""
    _, descriptor = store_copies._own(store_copies.folder() / "users")
    os.close(descriptor)
    store_copies._own.cache_clear()


def test_those_go_first_that_were_used_longest_ago():
    copies = {}
    for second, told in enumerate("abc"):
        copies[told], fetched = copy(told)
        assert fetched and copies[told].read_bytes() == told.encode() * 100
        os.utime(copies[told].parent, (second, second))
    end_process()
    assert copy("a") == (copies["a"], False)  # used again
    end_process()
    copies["d"], _ = copy("d")
    assert {told for told in copies if copies[told].exists()} == {"a", "c", "d"}
    with pytest.raises(NoRoom, match=r"name \(.* GB\) has no room in .*: what is in use needs"):
        copy("e", 201)
    assert copies["d"].exists() and limit() == 300
    check_room("gs://bucket/a", 300, "")
    with pytest.raises(NoRoom, match="gs://bucket/a has 3.01e-07 GB, .*_STORE_CACHE_GB, or go"):
        check_room("gs://bucket/a", 301, "or go")


def test_what_another_process_uses_stays():
    program = (
        "import sys; from ldm_jax.core.store_copies import copied; "
        "copied('a', 'name', lambda: 250, lambda to: to.write_bytes(bytes(250))); "
        "print('used', flush=True); sys.stdin.read()"
    )
    run = partial(subprocess.Popen, [sys.executable, "-c", program], text=True)
    with run(stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == "used\n"
        with pytest.raises(NoRoom):
            copy("b")
        store_copies._own.cache_clear()
    assert copy("b")[1]


def test_the_limit_is_a_number(monkeypatch, tmp_path):
    monkeypatch.setenv("LDM_JAX_STORE_CACHE_GB", "much")
    with pytest.raises(ValueError, match="STORE_CACHE_GB=much must be a number of gigabytes"):
        limit()
    monkeypatch.delenv("LDM_JAX_STORE_CACHE_GB")
    assert limit() > 10**9
