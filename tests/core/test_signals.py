"""Signals end a command at once and in one line, or ask it to save first."""

import signal
import subprocess
import sys
import time

import pytest

from ldm_jax.core.signals import SAME_REQUEST_SECONDS

BUSY = """
import gc, os, sys, threading, time
from ldm_jax.core.command import run_command
from ldm_jax.core.signals import ask_first, at_end, undisturbed
def main(words):
    {body}
sys.exit(run_command("prog", main, []))
"""
BODY = "{body}"
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
    """Starts Python with a body, in a command, which says when it is ready."""
    processes = []

    def run(body, around=BUSY):
        # Newer Pythons warn of any fork beside threads.
        command = [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            around.format(body=body),
        ]
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


IN_GC = """
    gc.callbacks.append(lambda phase, info: print('ready', flush=True) or time.sleep(100))
    gc.collect()
"""
NOBODY_READS = """
    print('ready', flush=True)
    while True: print('much' * 1000)
"""
SWALLOWED = """
    print('ready', flush=True)
    while True:
        try: time.sleep(100)
        except BaseException: pass
"""


@pytest.mark.parametrize(
    ("body", "number"),
    [
        (AT_ONCE, signal.SIGINT), (AT_ONCE, signal.SIGTERM), (IN_GC, signal.SIGINT),
        (SWALLOWED, signal.SIGINT), (NOBODY_READS, signal.SIGINT),
    ],
)  # fmt: skip
def test_a_signal_ends_a_command_wherever_it_stands(start, body, number):
    process = start(body)
    time.sleep(0.1)
    process.send_signal(number)
    assert process.wait(timeout=60) == 130
    assert process.stderr.read() == f"prog: interrupted by {number.name}\n"


def ended_by(process, number):
    """Sends a signal; what the process says before it ends, whose status must be 130."""
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    return said


def test_what_must_be_done_first_is_done_and_said(start, tmp_path):
    process = start(f"""
    folder = {str(tmp_path)!r}
    def write(name):
        with undisturbed():
            print('ready', flush=True)
            time.sleep(0.5)
            open(f"{{folder}}/{{name}}", "w").close()
    def count():
        open(f"{{folder}}/list", "w").write(str(sorted(os.listdir(folder))))
        return "one file is there"
    with at_end(lambda: "nothing was written"), at_end(count), at_end(lambda: None):
        write("one")
        write("two")
    """)
    # It is writing, and comes no further than to the end of that.
    assert ended_by(process, signal.SIGTERM) == (
        "prog: interrupted by SIGTERM; one file is there\n"
    )
    assert (tmp_path / "list").read_text() == "['list', 'one']"
    assert not (tmp_path / "two").exists()


def test_an_error_while_a_signal_ends_the_command_is_not_said(start):
    """What is removed at the end may be missed by who was at work with it."""
    process = start("""
    gone = threading.Event()
    def remove():
        gone.set()
        time.sleep(0.5)
    with at_end(remove):
        print('ready', flush=True)
        gone.wait()
        raise ValueError("a file is missing")
    """)
    assert ended_by(process, signal.SIGINT) == "prog: interrupted by SIGINT\n"


def test_what_takes_too_long_is_left_after_a_second_signal(start):
    process = start("""
    with at_end(lambda: print('begun', flush=True) or time.sleep(100)):
        print('ready', flush=True)
        time.sleep(100)
    """)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "begun\n"
    time.sleep(SAME_REQUEST_SECONDS + 0.1)
    ended_by(process, signal.SIGINT)


AT_THE_END = """
import atexit, sys, time
from ldm_jax.core.command import run_command, run_program
def main(words):
    atexit.register(lambda: print('ready', flush=True) or time.sleep({seconds}))
    return {status}
run_program("prog", lambda words: run_command("prog", main, words))
"""


@pytest.mark.parametrize(("status", "seconds"), [(0, 100), (1, 100), (3, 0)])
def test_a_command_that_has_done_its_work_ends_at_once_with_its_status(start, status, seconds):
    process = start(AT_THE_END.format(status=status, seconds=seconds), BODY)
    if seconds:
        process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (status, "")


def test_the_first_signal_asks_and_the_second_ends(start):
    process = start(ASKED)
    # `timeout` sends two to one process.
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "saving\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(SAME_REQUEST_SECONDS + 0.1)
    assert process.poll() is None
    first, second = ended_by(process, signal.SIGINT).splitlines()
    assert first.startswith("prog: SIGTERM: stopping after this step, then saving")
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
        "import os, signal, time\nfrom ldm_jax.core.signals import ask_first\n"
        "with ask_first() as stop:\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop.signal == signal.SIGINT\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    stop.noted -= 1\n"
        "    try: os.kill(os.getpid(), signal.SIGINT)\n"
        "    except KeyboardInterrupt: print('as usual')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("as usual\n", "")
