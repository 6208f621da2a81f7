"""One line for every error, and an exit status that says what kind it was."""

import errno
import os
import subprocess
import sys

import pytest

from ldm_jax.core.command import FAILED, INTERRUPTED, REFUSED, Failed, run_command
from ldm_jax.core.files import NotWritable
from ldm_jax.generation.programs import NonFiniteError


def run(error, arguments=()):
    def main(words):
        raise error

    return run_command("prog", main, arguments)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (ValueError("steps is 0"), REFUSED, "steps is 0"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.png"), REFUSED, "a.png"),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), REFUSED, "prog: a: No such file\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.png"),
            FAILED,
            "prog: a.png cannot be written: the disk is full; make room, or name another folder\n",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            FAILED,
            "prog: the output cannot be written: the disk is full",
        ),
        (OSError("nobody answers"), FAILED, "prog: nobody answers\n"),
        (NotWritable("--out=a: no"), REFUSED, "prog: --out=a: no\n"),
        (Failed("stands still"), FAILED, "stands still"),
        (NonFiniteError("no numbers"), FAILED, "no numbers"),
        (MemoryError(), FAILED, "not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory"), FAILED, "not enough memory"),
        (KeyError("x"), FAILED, "--debug"),
        (RecursionError("too deep"), FAILED, "RecursionError: too deep"),
        (KeyboardInterrupt(), INTERRUPTED, "interrupted"),
    ],
)
def test_an_error_is_one_line_and_a_status(capsys, error, status, text):
    assert run(error) == status
    said = capsys.readouterr().err
    assert said.startswith("prog: ") and said.count("\n") == 1 and text in said


def test_debug_shows_the_traceback_and_is_no_argument_of_the_command():
    with pytest.raises(ValueError, match="steps"):
        run(ValueError("steps"), ["--debug"])
    seen = []
    assert run_command("prog", seen.extend, ["--debug", "--a=1"]) == 0
    assert seen == ["--a=1"]


def test_words_that_are_not_utf_8_are_refused(capsys):
    word = os.fsdecode(b"--prompt=caf\xe9")
    assert run_command("prog", lambda words: 0, [word]) == REFUSED
    assert "not UTF-8 text (byte 0xe9)" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error():
    code = (
        "import sys; from ldm_jax.core.command import run_command\n"
        "def main(words):\n    for i in range(10**6): print(i)\n"
        "sys.exit(run_command('prog', main, []))"
    )
    command = f'{sys.executable} -c "$CODE" | head -n 1'
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "CODE": code}, capture_output=True, text=True
    )
    assert done.stdout == "0\n" and done.stderr == ""
