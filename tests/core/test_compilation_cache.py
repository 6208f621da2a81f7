"""Compiled programs are kept in the user's cache folder."""

import os
import time
import warnings

import pytest

from ldm_jax.core import compilation_cache as cache


@pytest.fixture(autouse=True)
def environment(monkeypatch, tmp_path):
    for name in (cache.FOLDER, cache.OFF, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.setenv(name, "x")  # so that it is set back whatever the test does
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(cache.sys, "platform", "linux")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)


def test_all_is_kept_in_a_folder_for_this_processor(tmp_path):
    cache.keep_compiled()
    folder = tmp_path / "ldm_jax" / "compiled"
    assert os.environ[cache.FOLDER].startswith(str(folder)) and len([*folder.iterdir()]) == 1
    assert os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] == "0"


@pytest.mark.parametrize(("name", "value"), [(cache.OFF, "false"), (cache.FOLDER, "elsewhere")])
def test_what_the_user_has_set_holds(monkeypatch, tmp_path, name, value):
    monkeypatch.setenv(name, value)
    cache.keep_compiled()
    assert os.environ.get(cache.FOLDER) != str(cache.cache_folder()) and not [*tmp_path.iterdir()]


def test_a_folder_that_cannot_be_made_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cache.keep_compiled()
    assert cache.FOLDER not in os.environ


def test_what_was_not_used_for_longest_is_deleted(monkeypatch):
    monkeypatch.setattr(cache, "MOST_BYTES", 250)
    folder = cache.cache_folder()
    folder.mkdir(parents=True)
    for age, name in enumerate("abc"):
        (folder / name).write_bytes(bytes(100))
        seconds = time.time() - 1000 * age
        os.utime(folder / name, (seconds, seconds))
    cache.keep_compiled()
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_a_program_that_was_not_written_whole_is_written_anew(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *more: shown.append(message))
    cache.keep_compiled()
    for name in ("jit_draw-1-cache", "jit_draw_more-2-cache"):
        (cache.cache_folder() / name).touch()
    told = "Error reading persistent compilation cache entry for 'jit_draw': zlib.error: cut"
    for message in (UserWarning(told), UserWarning("of something else")):
        warnings.showwarning(message, UserWarning, "compiler.py", 1)
    assert [str(message) for message in shown] == ["of something else"]
    assert [path.name for path in cache.cache_folder().iterdir()] == ["jit_draw_more-2-cache"]
