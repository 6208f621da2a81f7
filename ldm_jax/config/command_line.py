"""What command lines share: defaults of a config or a work directory, overridden by words."""

import argparse
import contextlib
import io
import itertools
from collections.abc import Collection, Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import tyro

from ldm_jax.config.checks import ConfigError, field_hints
from ldm_jax.config.choices import leaves
from ldm_jax.config.config_files import open_config
from ldm_jax.config.data import Data, EncodedLatents, ImageFolder, has_kind
from ldm_jax.config.serialization import from_json
from ldm_jax.config.setting_words import check_words
from ldm_jax.core.reading import FileFormatError, read_json, read_text
from ldm_jax.core.stores import as_path

Arguments = TypeVar("Arguments")

HELP_WORDS = {"-h", "--help"}
HELP = """
The images are those of --config=FILE, a config; or of --images=FOLDER; or, for a model that was
trained here, those that it was trained on. Single settings of them follow, such as
--data.image_size=256."""


class LineParser(argparse.ArgumentParser):
    """An argument parser whose errors are ConfigErrors, of one line."""

    def error(self, message: str) -> NoReturn:
        """Raises it."""
        raise ConfigError(message)


def overridden(
    default: Arguments, words: Sequence[str], prog: str, about: str = "",
    others: Collection[str] = (),
) -> Arguments:  # fmt: skip
    """`default`, a dataclass, with the fields that command-line words name.

    `others` are as in `setting_words.check_words`.

    Raises:
        ConfigError: options that do not exist or cannot be read, or values that a dataclass
            refuses, in its own words.
        SystemExit: after --help.
    """
    kind: Any = type(default)
    if HELP_WORDS.isdisjoint(words):
        words = check_words(words, leaves(default), others)
    return by_tyro(
        tyro.conf.AvoidSubcommands[kind], default=default, args=words, prog=prog,
        description=about, use_underscores=True,
    )  # fmt: skip


_REGISTRY = tyro.constructors.ConstructorRegistry()


@_REGISTRY.primitive_rule
def _paths(found: Any) -> tyro.constructors.PrimitiveConstructorSpec | None:
    """How tyro reads and shows paths: of this machine, or in a store."""
    if found.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        instance_from_str=lambda words: as_path(words[0]),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


def by_tyro(kind: Any, **how: Any) -> Any:
    """`tyro.cli(kind, **how)`, whose refusals are ConfigErrors of one line."""
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written):
            return tyro.cli(kind, registry=_REGISTRY, **how)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        error: BaseException | None = stop
        while error is not None:
            if isinstance(error, ConfigError):
                raise error from None
            error = error.__context__
        raise ConfigError(_one_line(written.getvalue())) from None


def parse_positional(
    kind: type, words: Sequence[str], prog: str, description: str | None, paths: Collection[str]
) -> Any:
    """The dataclass `kind` from `words`, of which those of its fields that are
    `tyro.conf.Positional` stand alone; `paths` are as for `check_given`.

    Raises:
        ConfigError: an empty word, fewer words than fields need, or a wrong option.
    """
    alone = {
        f.name.upper(): f.default is MISSING for f in fields(kind)
        if tyro.conf.Positional in getattr(field_hints(kind)[f.name], "__metadata__", ())
    }  # fmt: skip
    if "" in words:
        raise ConfigError(f"{', '.join(alone)} or option is empty; name a file or folder")
    check_given(words, paths)
    if HELP_WORDS.isdisjoint(words):
        words = check_words(words, field_hints(kind), positional=True)
        needed = [name for name, is_needed in alone.items() if is_needed]
        given = sum(not word.startswith("--") for word in words)
        if given < len(needed):
            raise ConfigError(
                f"{needed[given]} is missing: name {' '.join(needed)}; --help says more"
            )
    return by_tyro(kind, prog=prog, description=description, args=words)


def _one_line(box: str) -> str:
    """What stands first in a box of tyro's."""
    lines = [line.strip("│╭╮╰╯ ") for line in box.splitlines()]
    told = itertools.takewhile(lambda line: line.strip("─"), lines[1:])
    return " ".join(told) or "the options cannot be read; --help lists them"


def check_given(words: Sequence[str], names: Collection[str]) -> None:
    """Raises ConfigError for an option of `names`, which name files or folders, with nothing
    behind it: that would be the current folder."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        option, sign, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if word.startswith("--") and name in names and (not value if sign else following == ""):
            raise ConfigError(
                f"{option} is empty; name a file or folder (. is the current one), or leave it out"
            )


def check_model(path: str | None, option: str) -> None:
    """Raises ConfigError where no model is named, or one that is neither on this disk nor hf:."""
    if path is None:
        raise ConfigError(f"--{option}=MODEL is missing")
    if not path.startswith("hf:") and not as_path(path).exists():
        raise ConfigError(f"--{option}={path}: there is no such file or folder")


_PATHS = (
    "config", "images", "out", "vgg", "heads", "samples", "reference", "inception", "samples_npz",
)  # fmt: skip
"""Options that name files or folders."""


def parse(
    default: Arguments, arguments: Sequence[str], *, prog: str, description: str, model: str,
    required: bool = True,
) -> Arguments:  # fmt: skip
    """`default`, a dataclass with a field `data`, with what the command line says.

    `data` is that of `--config=FILE`, or of the run in the work directory that the option named
    `model` names; `--images=FOLDER` puts a folder in the place of its source. Unless they are
    `required`, no model need be named, `data` may be None, and encoded latents are let through.

    Raises:
        ConfigError: no model is named, there is no such config, or nothing says which images.
        SystemExit: after --help.
    """
    check_given(arguments, (*_PATHS, model))
    first = LineParser(add_help=False, allow_abbrev=False)
    places = ("config", "images", model)
    for name in places:
        first.add_argument(*{f"--{name}", f"--{name.replace('_', '-')}"}, dest=name)
    found, rest = first.parse_known_args(arguments)
    given = vars(found)
    if given[model] is not None:
        rest = [f"--{model}={given[model]}", *rest]
    if given["config"]:
        run, rest = open_config(given["config"]).take(rest)
        data = run.data
    else:
        data = _trained_on(given[model])
    if given["images"]:
        data = replace(data or Data(), source=ImageFolder(path=given["images"]))
    asked_for_help = not HELP_WORDS.isdisjoint(arguments)
    if not asked_for_help:
        if required or given[model] is not None:
            check_model(given[model], model)
        if required and data is None:
            raise ConfigError("no images are named: give --config=FILE or --images=FOLDER")
    default = replace(default, data=data or (Data() if required or asked_for_help else None))
    parsed = overridden(default, rest, prog, description + HELP, places)
    if required and has_kind(parsed.data.source, EncodedLatents):
        path = getattr(parsed.data.source, "path", "a mixture")
        raise ConfigError(
            f"data.source.path={path} is already encoded; name the folder of "
            "the images with --config=FILE or --images=FOLDER"
        )
    return parsed


def _trained_on(model: str | None) -> Data | None:
    """The data of the run in the work directory `model`; None where it is none."""
    path = as_path(model or "") / "config.json"
    if not model or not path.is_file():
        return None
    try:
        kind = read_json(path).get("type")
    except FileFormatError:
        return None
    return from_json(read_text(path)).data if kind in ("AutoencoderRun", "DiffusionRun") else None
