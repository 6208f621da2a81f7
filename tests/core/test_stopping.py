"""When runs stop before their end, and that all processes of a run stop after the same step."""

import itertools
import threading
import time

import pytest

from ldm_jax.core import signals, stopping
from ldm_jax.core.command import Failed
from ldm_jax.core.stopping import Stopping, StoppingTogether


class Store:
    """What JAX's coordinator keeps: a key is set once."""

    def __init__(self):
        self._values, self._changed = {}, threading.Condition()

    def key_value_set(self, key, value, allow_overwrite=False):
        with self._changed:
            if key in self._values:
                raise RuntimeError("ALREADY_EXISTS")
            self._values[key] = value
            self._changed.notify_all()

    def key_value_try_get(self, key):
        with self._changed:
            return self._values[key]

    def blocking_key_value_get(self, key, timeout_in_ms):
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._values, timeout_in_ms / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self._values[key]


def signalled():
    stop = signals.Stop()
    stop.note(15)
    return stop


def test_a_signal_or_the_hours_stop_a_run(monkeypatch):
    assert Stopping(signals.Stop(), None).after(3) is None
    assert Stopping(signalled(), None).after(3) == "stopped by SIGTERM"
    monkeypatch.setattr(signals, "STARTED", time.monotonic() - 3601)
    assert Stopping(signals.Stop(), 2.0).after(3) is None
    assert Stopping(signals.Stop(), 1.0).after(3) == "stopped after 1 hours (loop.max_hours)"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(stopping, "LOOK_SECONDS", 0.01)
    # What are processes here are threads of one, which count as one run.
    monkeypatch.setattr(stopping, "_runs", itertools.repeat(0))


def test_processes_of_different_speed_stop_after_the_same_step():
    """One runs ahead, as far as its devices let it: here four steps."""
    store, count, steps = Store(), 3, 500
    stops = [signals.Stop() for _ in range(count)]
    together = [StoppingTogether(stop, None, store, i, count) for i, stop in enumerate(stops)]
    done, stopped = [0] * count, [None] * count

    def loop(index):
        for step in range(1, steps + 1):
            while step > min(done) + 4:
                time.sleep(0.0001)
            time.sleep(0.0005 * (1 + 2 * index))
            done[index] = step
            why = together[index].after(step)
            if why is not None:
                stopped[index] = step, why
                done[index] = steps
                return

    threads = [threading.Thread(target=loop, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    stops[2].note(15)
    for thread in threads:
        thread.join()
    for one in together:
        one.close()
    assert len({*stopped}) == 1 and stopped[0][1] == "stopped by SIGTERM"
    assert 5 < stopped[0][0] < steps


def test_a_process_at_its_end_answers_the_others():
    store = Store()
    one, other = (StoppingTogether(signals.Stop(), None, store, i, 2) for i in range(2))
    assert one.after(7) is None and other.after(6) is None
    one.close()
    other._stop.note(15)
    deadline = time.monotonic() + 10
    while other._last is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert other.after(7) is None and other.after(8) == "stopped by SIGTERM"
    other.close()


def test_processes_that_do_not_answer_are_told_of(monkeypatch):
    monkeypatch.setattr(stopping, "ANSWER_SECONDS", 0.05)
    alone = StoppingTogether(signalled(), None, Store(), 0, 2)
    alone._thread.join()
    with pytest.raises(Failed, match="could not agree on where to stop: DEADLINE"):
        alone.after(1)
    alone.close()


def test_a_later_run_does_not_read_what_an_earlier_one_left(monkeypatch):
    monkeypatch.setattr(stopping, "_runs", itertools.count())
    store = Store()
    for stop, expected in ((signalled(), "stopped by SIGTERM"), (signals.Stop(), None)):
        run = StoppingTogether(stop, None, store, 0, 1)
        time.sleep(0.1)
        run.after(1)
        assert run.after(2) == expected
        run.close()
