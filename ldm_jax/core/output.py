"""What commands say to people, on stderr."""

import contextlib
import sys
from typing import TextIO


def say(text: str, stream: TextIO | None = None) -> None:
    """Prints a line to stderr, or to `stream`.

    That nobody reads it, or that its disk is full, stops no work.
    """
    with contextlib.suppress(OSError, ValueError):
        print(text, file=stream or sys.stderr, flush=True)
