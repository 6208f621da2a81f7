"""One run at a time in a work directory in a store."""

import json

import pytest

from ldm_jax.core.files import NotWritable
from ldm_jax.core.stores import as_path
from ldm_jax.workdir import store_lock
from ldm_jax.workdir.lock import Locked, locked


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Signs of life come sooner."""
    monkeypatch.setattr(store_lock, "RENEWED_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(store_lock, "SILENT_FOR_SECONDS", 2.0)
    monkeypatch.setattr(store_lock, "SETTLED_AFTER_SECONDS", 0.0)


def left_by(workdir, **more):
    """The lock of a run that has died."""
    owner = {"host": "far", "process": 7, "since": "2026-01-02T03:04:05+00:00", "beat": 3}
    (workdir / "lock").write_bytes(json.dumps(owner | more).encode())


def test_a_second_run_is_refused_while_the_first_lives(store, monkeypatch):
    workdir = as_path("gs://bucket/locked/run")
    with locked(workdir):
        monkeypatch.setattr(store_lock, "_lives", lambda process: True)
        with pytest.raises(Locked, match=f"{workdir} is being trained in by process"), locked(
            workdir
        ):  # fmt: skip
            pass
        assert (workdir / "lock").exists()
    assert not workdir.exists()


def test_the_lock_of_a_run_that_has_died_is_taken_over(store, capsys):
    workdir = as_path("gs://bucket/dead/run")
    left_by(workdir)
    with locked(workdir):
        assert json.loads((workdir / "lock").read_bytes())["process"] != 7
    assert "held by process 7 on far" in capsys.readouterr().err
    left_by(workdir, machine=store_lock._machine(), process=2**22 + 1)
    with locked(workdir):  # at once: there is no such process on this machine
        assert "token" in json.loads((workdir / "lock").read_bytes())
    assert capsys.readouterr().err == ""


def test_places_that_are_no_work_directory_are_refused(store, monkeypatch):
    with pytest.raises(NotWritable, match="gs://nowhere/run: there is no such bucket"), locked(
        as_path("gs://nowhere/run")
    ):  # fmt: skip
        pass
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("jax.process_count", lambda: 2)
    with pytest.raises(NotWritable, match="several processes write checkpoints to gs://"), locked(
        as_path("s3://bucket/run")
    ):  # fmt: skip
        pass
