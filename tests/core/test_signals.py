"""Signals end a command at once and in one line, or ask it to save first."""

import signal
import subprocess
import sys

import pytest

BUSY = """
import sys, threading
from ldm_jax.core.signals import ask_first, end_at_once
with end_at_once("prog"):
    {body}
"""
AT_ONCE = "print('ready', flush=True); lock = threading.Lock(); lock.acquire(); lock.acquire()"
ASKED = """
    with ask_first() as stop:
        print('ready', flush=True)
        while stop.signal is None: pass
        print('saving', flush=True)
        lock = threading.Lock(); lock.acquire(); lock.acquire()
"""


@pytest.fixture
def start():
    """Starts Python with a body, which says when it is ready."""
    processes = []

    def run(body):
        command = [sys.executable, "-c", BUSY.format(body=body)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_wherever_it_stands(start, number):
    process = start(AT_ONCE)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == f"prog: interrupted by {number.name}\n"


def test_the_first_signal_asks_and_the_second_ends(start):
    process = start(ASKED)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    first, second = said.splitlines()
    assert first.startswith("prog: SIGTERM; saving after this step")
    assert second == "prog: interrupted by SIGINT; what was not saved is lost"


def test_signals_of_a_forked_child_are_its_own(start):
    process = start(
        "import os, signal, time\n    child = os.fork()\n    if not child: time.sleep(100)\n"
        "    os.kill(child, signal.SIGTERM); _, status = os.waitpid(child, 0)\n"
        "    print('ready', flush=True); print(os.WTERMSIG(status), flush=True)"
    )
    assert process.stdout.readline() == "15\n"
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, "")


def test_a_program_that_uses_the_library_keeps_its_handlers():
    code = (
        "import os, signal\nfrom ldm_jax.core.signals import ask_first\n"
        "with ask_first() as stop:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.signal == signal.SIGINT\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt: print('as usual')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("as usual\n", "")
