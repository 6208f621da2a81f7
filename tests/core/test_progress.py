"""Progress that can be read in a log, and that stops nothing."""

import errno

from ldm_jax.core import progress
from ldm_jax.core.progress import Progress


def test_progress_that_nobody_can_read_stops_no_run(monkeypatch):
    def full(text):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sys.stderr.write", full)
    with Progress("training", total=2) as bar:
        bar.update(1, loss=1.0)


def test_progress_in_a_log_is_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("training", total=100, initial=50, images=8) as bar:
        for _ in range(25):
            now[0] += 1.0
            bar.update(1, loss=0.125)
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == ("training 60/100, loss 0.125, 8 images/s, 00:10 passed, 00:40 left")
    assert [line.split()[1].rstrip(",") for line in printed] == ["60/100", "70/100", "75/100"]


def test_what_is_done_in_a_pause_does_not_count(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress("training", total=100, images=8) as bar:
        with bar.paused():
            now[0] += 60.0
        for _ in range(10):
            now[0] += 1.0
            bar.update(1)
        assert bar.seconds() == 10.0
    # The first line comes at once, for a minute has passed without any.
    printed = capsys.readouterr().err.splitlines()
    assert printed[0] == "training 1/100, 8 images/s, 01:01 passed, 01:39 left"


def test_progress_on_a_terminal_is_a_bar(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with Progress("sampling", total=2, images=4) as bar:
        bar.update(2, loss=1.0)
    printed = capsys.readouterr().err
    assert "sampling 100%" in printed
    assert "images/s" in printed
