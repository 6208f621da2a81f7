"""`sample.py --interactive`: the model is loaded and compiled once; prompts come line by line."""

import contextlib
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, replace
from itertools import chain
from typing import TYPE_CHECKING

from ldm_jax.cli import options
from ldm_jax.cli.sample_arguments import FIRST, PROGRAM, known_options, naming_options
from ldm_jax.config import ConfigError, ModelChoice, Request
from ldm_jax.config.request import settings
from ldm_jax.core.command import told
from ldm_jax.core.reading import printable
from ldm_jax.core.signals import at_end

if TYPE_CHECKING:
    from ldm_jax.generation.resolve import ResolvedRequest

HOW = """Type a prompt and press Enter. Enter alone draws the last prompt again from other noise.
--steps=20 --guidance=3 on a line changes these options; quit or Ctrl-D ends; ? says more."""
ENDS = ("quit", "exit")
HELPS = ("?", "-h", "--help")
"""Lines that ask for help. The word alone may be a prompt."""
_CONDITIONS = {"prompt", "classes"}


def help_text() -> str:
    """What can be typed."""
    known = known_options()
    names = [name for name in chain.from_iterable(FIRST.values()) if _is_changeable(name)]
    options_of = textwrap.wrap(
        ", ".join(known[name].shown for name in names), 80, break_on_hyphens=False
    )
    return "\n".join([
        "A line is one of these:",
        "  a prompt                    draws it, as it stands",
        "  nothing                     draws the last prompt again from other noise",
        "  --steps=20 --guidance=3     changes these options for all that follows",
        '  --prompt="a" "b" --num=4    changes them, and draws',
        "  quit, exit or Ctrl-D        ends",
        "Options that can be changed:",
        *(f"  {line}" for line in options_of),
        "and most others of `python sample.py --help`, which explains them all; not those of the",
        "model and of the files.",
    ])  # fmt: skip


@dataclass
class Session:
    """Draws what lines of text ask for, with numbers that go on."""

    request: Request
    """What an empty line draws: the settings so far, and the number of the next picture."""
    resolve: Callable[[Request], "ResolvedRequest"]
    draw: Callable[["ResolvedRequest"], list[str]]
    """Draws and writes; returns the pictures' names."""

    def take(self, line: str) -> list[str]:
        """Does what a line says; returns the pictures that it gave.

        Raises ValueError for a prompt or an option that cannot be; the session is then as before.
        """
        text = line.strip()
        if not text.startswith("--"):
            request = self.request
            if text:
                request = request.changed(prompt=_prompt(text), classes=())
            return self._draw(request)
        values, typed = options.read(_split(text), known_options())
        _check_changeable(values, typed)
        with naming_options(typed):
            request = self.request.changed(**_alone(values))
            if not _CONDITIONS.isdisjoint(values):
                return self._draw(request)
            self.resolve(request)
        self.request = request
        return []

    def _draw(self, request: Request) -> list[str]:
        resolved = self.resolve(request)
        following = replace(request, first_image=request.first_image + request.num)
        names = self.draw(resolved)
        self.request = following
        return names


def _prompt(text: str) -> tuple[str]:
    known = options.spellings(known_options())
    for word in text.split():
        name = word[2:].partition("=")[0].replace("-", "_")
        if word.startswith("--") and name in known:
            raise ConfigError(f"{word} is within a prompt; options stand on a line of their own")
    return (text,)


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        raise ConfigError(f"the quotes in {text!r} are not closed") from None


def _is_changeable(name: str) -> bool:
    """Whether a setting can be another while the model stays loaded."""
    return name in settings() and name not in {f.name for f in fields(ModelChoice)}


def _check_changeable(values: Collection[str], typed: dict[str, str]) -> None:
    for name in values:
        if not _is_changeable(name):
            raise ConfigError(
                f"{typed[name]} cannot be changed while the model stays loaded; end with quit and "
                "start again with it"
            )


def _alone(values: dict) -> dict:
    """With `prompt` or `classes` the other one is no longer asked for."""
    given = _CONDITIONS & values.keys()
    return values | {name: () for name in _CONDITIONS - given if len(given) == 1}


def lines() -> Iterator[str]:
    """The lines of the standard input, asked for with "prompt> " on a terminal."""
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    print(HOW, flush=True)
    with _line_editing(), contextlib.suppress(EOFError):
        while True:
            yield input("prompt> ")
    print()


@contextlib.contextmanager
def _line_editing() -> Iterator[None]:
    """Arrow keys edit the line and bring back earlier ones, where Python has readline; a terminal
    that a signal leaves is as it was before."""
    import termios

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - `input` uses it
    before = termios.tcgetattr(sys.stdin)
    with at_end(lambda: termios.tcsetattr(sys.stdin, termios.TCSANOW, before)):
        yield


def run(session: Session, given: Iterator[str]) -> None:
    """Takes line after line; prints pictures and seconds, and errors in one line each."""
    for line in given:
        if line.strip().lower() in ENDS:
            return
        if line.strip().lower() in HELPS:
            print(help_text(), flush=True)
            continue
        start = time.perf_counter()
        try:
            names = session.take(line)
        except ValueError as error:
            text = printable(told(error)[1])
            print(f"{PROGRAM}: {text}", file=sys.stderr, flush=True)
            continue
        seconds = time.perf_counter() - start
        if names:
            pictures = "1 picture" if len(names) == 1 else f"{len(names)} pictures"
            print(*map(printable, names), f"{pictures} in {seconds:.2f} s", sep="\n", flush=True)
        else:
            print(f"{line.strip()} from the next picture on", flush=True)
