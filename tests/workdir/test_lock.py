"""One run at a time in a work directory, and no lock outlives its process."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from ldm_jax.workdir import lock

HOLD = (
    "import sys, time; from pathlib import Path; from ldm_jax.workdir.lock import locked\n"
    "with locked(Path(sys.argv[1])):\n    print('in', flush=True); time.sleep(100)"
)


@pytest.fixture
def quick(monkeypatch):
    """Signs of life come sooner."""
    monkeypatch.setattr(lock, "RENEWED_EVERY_SECONDS", 0.02)
    monkeypatch.setattr(lock, "SILENT_FOR_SECONDS", 0.5)


def left_by(workdir, host):
    """The lock file of a process that has died, on `host`."""
    workdir.mkdir()
    owner = {"host": host, "process": 7, "since": "2026-01-02T03:04:05+00:00"}
    (workdir / "lock").write_text(json.dumps(owner))


def test_a_second_run_is_refused_by_name_until_the_first_is_dead(tmp_path):
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "in\n"
    with pytest.raises(lock.Locked) as error, lock.locked(workdir):
        pass
    text = str(error.value)
    assert f"{workdir} is being trained in by process {process.pid} on {socket.gethostname()}" in (
        text
    )
    assert f"since {time.strftime('%Y-')}" in text and "another --workdir" in text
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with lock.locked(workdir):
        assert json.loads((workdir / "lock").read_text())["process"] == os.getpid()
    with lock.locked(tmp_path / "new" / "run"):
        pass
    assert not (tmp_path / "new").exists()  # a run that wrote nothing leaves nothing


def test_runs_one_after_the_other_are_not_refused(tmp_path):
    (tmp_path / "config.json").touch()
    for _ in range(3):
        with lock.locked(tmp_path):
            with pytest.raises(lock.Locked), lock.locked(tmp_path):
                pass
            assert (tmp_path / "lock").exists()
        assert not (tmp_path / "lock").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3, "process": {}}'])
def test_a_lock_file_that_says_nothing_is_no_obstacle(tmp_path, content, quick):
    (tmp_path / "lock").write_text(content)
    with lock.locked(tmp_path):
        pass


def test_a_dead_run_of_another_machine_is_no_obstacle(tmp_path, quick, capsys):
    left_by(tmp_path / "run", "elsewhere")
    with lock.locked(tmp_path / "run"):
        pass
    assert "process 7 on elsewhere, there since 2026-01-02" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])
def test_a_living_run_that_locks_do_not_reach_is_found_by_its_sign_of_life(
    tmp_path, quick, monkeypatch, host
):
    left_by(tmp_path / "run", host)
    monkeypatch.setattr(lock, "_lock", lambda *_: False)  # as on a file system without locks
    over = threading.Event()
    descriptor = os.open(tmp_path / "run" / "lock", os.O_RDWR)
    holder = threading.Thread(target=lock._renew, args=(descriptor, over))
    holder.start()
    try:
        with (
            pytest.raises(lock.Locked, match=f"process 7 on {host}"),
            lock.locked(tmp_path / "run"),
        ):
            pass
    finally:
        over.set()
        holder.join()
        os.close(descriptor)
    with lock.locked(tmp_path / "run"):
        pass
