"""What every command has in common: exit statuses, interruption, and one line for each error.

It imports nothing but Python's own library, so that a command is ready for Ctrl-C at once.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Sequence

from ldm_jax.core.reading import printable

FAILED = 1
"""Something went wrong on the way: a full disk, too little memory, a loss that is not finite, a
record that is not drawn again bit for bit, an error nobody foresaw."""
REFUSED = 2
"""What was asked, or a file that was named, cannot be; nothing was begun."""
SAVED = 75
"""Training was interrupted and its state is saved; the same command goes on from it."""
INTERRUPTED = 130
"""Ctrl-C; nothing was lost that was finished before."""

_NAMED_WRONGLY = (
    FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, PermissionError,
)  # fmt: skip


class Failed(RuntimeError):
    """A command that failed on the way; the text is for the user. `status` is its exit status."""

    status = FAILED


def run_command(
    program: str,
    main: Callable[[list[str]], int | None],
    arguments: Sequence[str],
    interrupted: str = "interrupted",
) -> int:
    """Runs `main(arguments)` and returns the process's exit status; every error is one line.

    `--debug` among the arguments shows the traceback of an error instead. `interrupted` is what
    Ctrl-C says.
    """
    debug = "--debug" in arguments
    try:
        words = [word for word in arguments if word != "--debug"]
        _check_words(words)
        return main(words) or 0
    except KeyboardInterrupt:
        _say(program, interrupted)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:
        if debug:
            raise
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
                f"{printable(word)} is not UTF-8 text (byte {bytes_of[error.start]:#04x}); a "
                "prompt is given in UTF-8, and a file with such a name must be renamed"
            ) from error


def told(error: Exception) -> tuple[int, str]:
    """Exit status and words of an error, for the user."""
    if isinstance(getattr(error, "status", None), int):
        return error.status, str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)[:2000]:
        return FAILED, (
            "not enough memory; draw or train smaller pictures, fewer at a time (batch_size), or "
            "in parts (optim.accumulation, --tile). --debug shows where"
        )
    if isinstance(error, OSError) and not isinstance(error, _NAMED_WRONGLY):
        return FAILED, str(error)
    if isinstance(error, ValueError | OSError):
        return REFUSED, str(error)
    first = next(iter(str(error).splitlines()), "")
    return FAILED, (
        f"an error nobody foresaw, {type(error).__name__}: {first}; the same command with --debug "
        "shows where, for a report"
    )


def _say(program: str, text: str) -> None:
    say(f"{program}: {printable(text)}")


def say(text: str) -> None:
    """Prints a line to stderr. That nobody reads it, or that its disk is full, stops no work."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)
