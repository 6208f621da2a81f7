"""Traces of training steps, without which a run can do."""

import jax
import pytest

from ldm_jax.training.profile import Profile


@pytest.fixture
def calls(monkeypatch):
    made = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: made.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: made.append("stop"))
    return made


def _steps(profile, steps):
    with profile:
        for step in steps:
            profile.before(step)
            profile.after(step, None)


def test_the_steps_that_are_asked_for_are_traced(calls, tmp_path, capsys):
    profile = Profile(tmp_path, (3, 2))
    with profile:
        for step in range(1, 7):
            profile.before(step)
            profile.after(step, None)
            assert ("stop" in calls) == (step >= 4)
    assert calls == [str(tmp_path / "profile"), "stop"]
    assert "profile of steps 3 to 4 in" in capsys.readouterr().err


def test_what_cannot_be_written_or_is_past_is_told(calls, monkeypatch, tmp_path, capsys):
    def full(folder):
        raise OSError("No space left on device")

    _steps(Profile(tmp_path, (3, 2)), range(10, 12))
    assert "nothing was profiled: step 3 was done before" in capsys.readouterr().err
    monkeypatch.setattr(jax.profiler, "start_trace", full)
    _steps(Profile(tmp_path, (3, 2)), range(1, 7))
    assert "No space left on device; the run goes on" in capsys.readouterr().err
    _steps(Profile(tmp_path, None), range(1, 7))
    assert capsys.readouterr().err == "" and not calls
