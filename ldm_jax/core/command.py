"""What every command has in common: exit statuses, interruption, and one line for each error.

It imports nothing but Python's own library, so that a command is ready for Ctrl-C at once.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from ldm_jax.core import signals
from ldm_jax.core.compilation_cache import keep_compiled
from ldm_jax.core.files import NEVER_OF_READING, NotWritten, not_written
from ldm_jax.core.output import say
from ldm_jax.core.reading import printable
from ldm_jax.core.signals import INTERRUPTED

FAILED = 1
"""Something went wrong on the way: a full disk, too little memory, a loss that is not finite, a
record that is not drawn again bit for bit, an error nobody foresaw."""
REFUSED = 2
"""What was asked, or a file that was named, cannot be; nothing was begun."""
SAVED = 75
"""Training was interrupted and its state is saved; the same command goes on from it."""

_NAMED_WRONGLY = (
    FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError,
)  # fmt: skip


class Failed(RuntimeError):
    """A command that failed on the way; the text is for the user. `status` is its exit status."""

    status = FAILED


def run_program(program: str, main: Callable[[list[str]], int]) -> NoReturn:
    """Runs `main`, which runs a command, with the arguments of this process, and ends the process
    with the status that it returns; signals are handled until then, and JAX keeps what it compiles.
    """
    signals.stay(program)
    keep_compiled()
    status: int | None = FAILED
    try:
        status = main(sys.argv[1:])
    except SystemExit as stop:  # --help, or an option that does not exist
        status = stop.code
    finally:
        signals.finish(status or 0)
    sys.exit(status)


def run_command(
    program: str, main: Callable[[list[str]], int | None], arguments: Sequence[str]
) -> int:
    """Runs `main(arguments)` and returns the process's exit status; every error is one line.

    `--debug` among the arguments shows the traceback of an error instead. SIGINT and SIGTERM end
    the process with one line, whatever it does; see `core/signals.py`.
    """
    with signals.end_at_once(program):
        status = _status(program, main, arguments)
        signals.wait_if_ending()
        return status


def _status(program: str, main: Callable[[list[str]], int | None], arguments: Sequence[str]) -> int:
    debug = "--debug" in arguments
    try:
        words = [word for word in arguments if word != "--debug"]
        _check_words(words)
        status = main(words) or 0
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        _say(program, "interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            raise
        signals.wait_if_ending()
        status, text = told(error)
        _say(program, text)
        return status


def _check_words(words: Sequence[str]) -> None:
    for word in words:
        try:
            word.encode()
        except UnicodeEncodeError as error:
            bytes_of = os.fsencode(word)
            raise ValueError(
                f"{printable(word)} is not UTF-8 text (byte {bytes_of[error.start]:#04x}); "
                "give it in UTF-8, and rename a file or folder that has such a name"
            ) from error


def run_task(program: str, task: str, interrupted: str, arguments: list[str]) -> int:
    """As `run_command`, of `main(program, words)` of the module `task`. That is imported only then,
    which takes its time, and Ctrl-C may come at any; where a signal ends it, `interrupted` is said.
    """

    def run(words: list[str]) -> None:
        with signals.at_end(lambda: interrupted):
            importlib.import_module(task).main(program, words)

    return run_command(program, run, arguments)


def told(error: Exception) -> tuple[int, str]:
    """Exit status and words of an error, for the user."""
    if isinstance(getattr(error, "status", None), int):
        return error.status, str(error)
    if out_of_memory(error):
        return FAILED, (
            "not enough memory; draw or train smaller pictures, fewer at a time (batch_size), or "
            "in parts (optim.accumulation, --tile). --debug shows where"
        )
    if isinstance(error, ModuleNotFoundError):
        return REFUSED, (
            f"{error.name} is not installed for {sys.executable}; activate the environment that "
            "ldm_jax is installed in, or install it (README.md)"
        )
    if isinstance(error, OSError) and not isinstance(error, _NAMED_WRONGLY):
        return FAILED, _words(error)
    if isinstance(error, ValueError | OSError):
        return REFUSED, _words(error)
    first = next(iter(str(error).splitlines()), "")
    return FAILED, (
        f"an error nobody foresaw, {type(error).__name__}: {first}; the same command with --debug "
        "shows where, for a report"
    )


def out_of_memory(error: Exception) -> bool:
    """Whether memory has run out, of this machine or of a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)[:2000]


def _words(error: ValueError | OSError) -> str:
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, NotWritten):
        return str(error)
    if error.errno in NEVER_OF_READING:
        return not_written(error)
    return ": ".join(filter(None, (error.filename and str(error.filename), error.strerror)))


def _say(program: str, text: str) -> None:
    say(f"{program}: {printable(text)}")
