"""The command line of `sample.py`: a request, and what is only about the command."""

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import tyro

from ldm_jax.config import ConfigError, ModelChoice, Request
from ldm_jax.config.command_line import check_given, switches
from ldm_jax.config.request import paths, settings
from ldm_jax.core.reading import FileFormatError, printable, read_lines

PROGRAM = "sample.py"


@dataclass(frozen=True)
class Command:
    """Draws pictures with a trained model and says in each file how it was made."""

    request: Request = field(default_factory=Request)
    prompts: Path | None = None
    """Text file with one caption a line."""
    out: Path = Path("samples")
    """Folder for the PNG files, grid.png and manifest.json; it must be new or empty."""
    overwrite: bool = False
    """Write into a folder that has files already."""
    from_png: Path | None = None
    """A picture whose settings are the defaults of all others but --out."""
    progress_strip: int | None = None
    """Write beside each picture a strip of so many predictions of it, from the first step to the
    last; fewer where there are fewer evaluations."""
    video: bool = False
    """Write these beside it as an animated WebP too."""
    invert: Path | None = None
    """Write OUT/noise.npy instead, for --latents: noise from which the same prompts, sampler and
    steps draw this picture, without guidance."""
    benchmark: bool = False
    """Draw a fixed set of samples instead (the captions and sampler given, or a few of each), time
    and hash them, and write OUT/record.json and OUT/record.npz."""
    verify: Path | None = None
    """Draw the samples of such a record again, and say whether they are equal bit for bit, or how
    far off; the exit status is 1 if they are not."""
    filled: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Usual values that a picture was drawn with, which are kept."""
    lines: tyro.conf.Suppress[tuple[int, ...]] = ()
    """The line in `prompts` of each caption from there, which are the request's last."""
    of_picture: tyro.conf.Suppress[tuple[str, ...]] = ()
    """Settings of the request that the picture of `from_png` says, not the command line."""


_DRAWS_ANYWAY = {
    "prompt", "classes", "negative_prompt", "num", "first_prompt", "first_image", "seed", "model",
}  # fmt: skip
"""Settings on which no usual value of others depends."""
_OPEN_A_MODEL = {f.name for f in fields(ModelChoice)}
"""What `--verify` takes beside a record, which says all else."""


def parse(arguments: Sequence[str]) -> Command:
    """The command line, on top of the settings of the picture that `--from_png` names.

    What a picture says that cannot be used, and which files it names, is written to the error
    output.

    Raises:
        ConfigError: settings that cannot be, or that do not go together.
        FileFormatError: the picture has no settings; a file with captions cannot be read.
        SystemExit: after --help, or for options that do not exist.
    """
    files = ("out", "prompts", "from_png", "invert", "verify")
    check_given(arguments, (*paths(), *files))
    default, filled = Command(), {}
    first = _first(arguments)
    if first.from_png is not None:
        request, filled = _from_png(first)
        default = replace(default, request=request)
    command = _parsed(arguments, default)
    if filled and _changed(command.request, default.request) <= _DRAWS_ANYWAY:
        # As it was drawn, though the usual values have become others since.
        request = command.request.changed(**filled)
        command = replace(command, request=request, filled=tuple(filled))
    if command.prompts is not None:
        numbered = enumerate(read_lines(command.prompts), 1)
        captions = {number: text.strip() for number, text in numbered if text.strip()}
        if not captions:
            raise FileFormatError(command.prompts, "has no caption in it")
        request = replace(command.request, prompt=(*command.request.prompt, *captions.values()))
        command = replace(command, request=request, lines=tuple(captions))
    if first.from_png is not None:
        _say_files(first.from_png, default.request, command.request)
        changed = _changed(command.request, default.request)
        of_picture = tuple(name for name in default.request.to_dict() if name not in changed)
        command = replace(command, of_picture=of_picture)
    check(command)
    return command


def check(command: Command) -> None:
    """Raises ConfigError for what cannot work, whatever the model."""
    request, model = command.request, command.request.model
    if command.verify is not None:
        _check_verification(command)
        return
    if model.model is None:
        raise ConfigError("--model=MODEL is missing: a work directory, model folder or single file")
    if command.progress_strip is not None and not 2 <= command.progress_strip <= 1000:
        raise ConfigError(f"--progress_strip={command.progress_strip}: it must be 2 to 1000")
    if command.video and command.progress_strip is None:
        raise ConfigError("--video needs --progress_strip=K, the number of its pictures")
    if command.benchmark:
        for name in ("progress_strip", "invert"):
            if getattr(command, name) is not None:
                raise ConfigError(f"--benchmark writes a record; leave out --{name}")
    if command.invert is not None:
        values = request.to_dict()
        for name in ("init_image", "mask", "latents", "negative_prompt"):
            if values.get(name):
                raise ConfigError(f"--invert goes from a picture to its noise; leave out --{name}")
        if command.progress_strip is not None:
            raise ConfigError("--invert writes no pictures; leave out --progress_strip")
        if request.num != 1:
            raise ConfigError("--invert finds one noise for each prompt; leave out --num")


def inputs(command: Command) -> dict[str, Path]:
    """The files and folders that a command reads, by the options that name them."""
    named = {name: Path(p) for name in ("prompts", "from_png", "invert")
             if (p := getattr(command, name)) is not None}  # fmt: skip
    values = command.request.to_dict()
    return named | {name: Path(values[name]) for name in paths() if name in values}


def _check_verification(command: Command) -> None:
    for name in _changed(command.request, Request()) - _OPEN_A_MODEL:
        raise ConfigError(f"--verify draws what the record says; leave out --{name}")
    for f in fields(command):
        if f.name not in ("request", "verify") and getattr(command, f.name) != f.default:
            raise ConfigError(f"--verify draws what the record says; leave out --{f.name}")


def _changed(request: Request, before: Request) -> set[str]:
    """The settings in which two requests differ."""
    one, other = request.to_dict(), before.to_dict()
    return {name for name in settings() if one.get(name) != other.get(name)}


# ------------------------------------------------------------------------------------- parsing


def _first(arguments: Sequence[str]) -> argparse.Namespace:
    """What decides how the others are read."""
    parser = argparse.ArgumentParser(prog=PROGRAM, add_help=False, allow_abbrev=False)
    for name in ("from_png", "init_image", "prompts"):
        parser.add_argument(*{f"--{name}", f"--{name.replace('_', '-')}"}, dest=name, type=Path)
    for name in ("prompt", "classes"):
        parser.add_argument(f"--{name}", nargs="*")
    return parser.parse_known_args(arguments)[0]


def _parsed(arguments: Sequence[str], default: Command) -> Command:
    """What tyro reads; where a dataclass refuses a value, its own words, in one line."""
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written):
            return tyro.cli(
                tyro.conf.OmitArgPrefixes[Command], args=switches(arguments), default=default,
                prog=PROGRAM,
            )  # fmt: skip
    except SystemExit as stop:
        error: BaseException | None = stop
        while error is not None:
            if isinstance(error, ConfigError):
                raise error from None
            error = error.__context__
        sys.stderr.write(written.getvalue())
        raise


# ---------------------------------------------------------------------------------- from a PNG


def _from_png(first: argparse.Namespace) -> tuple[Request, dict[str, Any]]:
    """The picture's request, and the usual values that it was drawn with."""
    from ldm_jax.images.sample_writer import read_written

    also = {} if first.init_image is None else {"init_image": str(first.init_image)}
    written = read_written(first.from_png, also)
    for problem in written.problems:
        _say(f"{first.from_png}: left out: {problem}")
    other_conditions = (first.prompt, first.prompts, first.classes) != (None, None, None)
    if not other_conditions and any(problem.startswith("prompt") for problem in written.problems):
        raise FileFormatError(first.from_png, "has a prompt that cannot be used; give --prompt")
    drawn = written.request
    # Usual values that another sampler or model would not have are not carried over to it.
    neutral = Request()
    filled = {name: drawn.setting(name) for name in written.filled}
    request = drawn.changed(**{name: neutral.setting(name) for name in filled})
    if other_conditions:
        request = replace(request, prompt=(), classes=())
    return request, filled


def _say_files(picture: Path, named: Request, used: Request) -> None:
    """Names the files that a picture, not the command line, has chosen."""
    one, other = named.to_dict(), used.to_dict()
    for name in paths():
        if name in other and one.get(name) == other[name]:
            _say(f"{picture} names --{name}={other[name]}, which is read")


def _say(text: str) -> None:
    print(f"{PROGRAM}: {printable(text)}", file=sys.stderr, flush=True)
