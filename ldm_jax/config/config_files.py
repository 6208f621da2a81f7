"""Configs in Python files, those of `configs/` among them, and the options that they have."""

import ast
import difflib
import inspect
import re
import runpy
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm_jax.config.checks import ConfigError, allowed, matches, told
from ldm_jax.config.runs import Run
from ldm_jax.config.serialization import CLASSES, no_field
from ldm_jax.config.setting_words import value as setting
from ldm_jax.core.reading import FileFormatError, read_text
from ldm_jax.core.stores import as_path

SHIPPED = Path(__file__).parents[2] / "configs"
"""The configs of this project, which are also named without folder and suffix."""


@dataclass(frozen=True)
class ConfigFile:
    """A Python file with `get_config()`, whose parameters are the config's options."""

    path: Path
    about: str
    """The file's docstring."""
    options: Mapping[str, inspect.Parameter]
    get_config: Callable[..., Run]

    def make(self, **options: Any) -> Run:
        """The run with such options.

        Raises:
            ConfigError: an option that there is not, or of a wrong value; or an error in the file,
                with its line.
        """
        for name in options.keys() - self.options.keys():
            raise ConfigError(f"--config={self.path} has no option --{name}{self._has()}")
        for name, option in self.options.items():
            if name in options and not matches(options[name], option.annotation):
                raise ConfigError(told(f"--{name}", options[name], option.annotation))
            if name not in options and option.default is inspect.Parameter.empty:
                raise ConfigError(
                    f"--config={self.path} needs --{name}, which must be "
                    f"{allowed(option.annotation)}"
                )
        with _its_errors(self.path):
            run = self.get_config(**options)
        if not isinstance(run, Run):
            names = " or ".join(kind.__name__ for kind in typing.get_args(Run))
            raise ConfigError(
                f"get_config() of --config={self.path} returns a {type(run).__name__}; it must "
                f"return one of {names}"
            )
        return run

    def take(self, words: Sequence[str], **given: Any) -> tuple[Run, list[str]]:
        """The run with the options among command-line `words`, and the other words. Of `given`,
        what the command knows by itself, those are options that the config asks for.

        Raises:
            ConfigError: as `make`, or an option without a value.
        """
        options = {name: value for name, value in given.items() if name in self.options}
        rest: list[str] = []
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            option, sign, text = word.partition("=")
            name = option.removeprefix("--").replace("-", "_")
            if not word.startswith("--") or name not in self.options:
                rest.append(word)
                continue
            if not sign:
                if not waiting or waiting[0].startswith("--"):
                    raise ConfigError(f"{option} needs a value: {option}=VALUE")
                text = waiting.pop(0)
            options[name] = setting(text, self.options[name].annotation)
        return self.make(**options), rest

    def _has(self) -> str:
        return f"; it has {', '.join(f'--{name}' for name in self.options)}" if self.options else ""


def open_config(path: str | Path) -> ConfigFile:
    """The config file at `path`, or the one of `configs/` that is called so.

    Raises:
        ConfigError: no such file, no such function in it, or an error in the file, with its line.
    """
    file = _located(str(path))
    try:
        about = read_text(file)
    except FileFormatError as error:
        raise ConfigError(f"--config={path} {error.args[1]}{_nearest(str(path))}") from error
    with _its_errors(file):
        about = ast.get_docstring(ast.parse(about, str(file))) or ""
        get_config = runpy.run_path(str(file)).get("get_config")
    if not callable(get_config):
        raise ConfigError(f"--config={path} defines no get_config()")
    options = dict(inspect.signature(get_config, eval_str=True).parameters)
    return ConfigFile(file, about, options, get_config)


def load(path: str | Path, **options: Any) -> Run:
    """What `get_config(**options)` returns, of a file or of a config of `configs/` by its name.

    Raises:
        ConfigError: as `open_config` and `ConfigFile.make`.
    """
    return open_config(path).make(**options)


def shipped() -> dict[str, str]:
    """What each config of `configs/` is, by name: the first sentence of its file."""
    found = {}
    for file in sorted(SHIPPED.glob("*.py")):
        about = ast.get_docstring(ast.parse(read_text(file))) or ""
        found[file.stem] = " ".join(about.split("\n\n")[0].split())
    return found


def _located(path: str) -> Path:
    """The file that is meant."""
    named = SHIPPED / f"{path}.py"
    return named if re.fullmatch(r"\w+", path) and named.is_file() else as_path(path)


def _nearest(path: str) -> str:
    close = difflib.get_close_matches(Path(path).stem, [file.stem for file in SHIPPED.glob("*.py")])
    return f"; perhaps you meant {close[0]}" if close else "; train.py --help lists those there are"


@contextmanager
def _its_errors(file: Path) -> Iterator[None]:
    """Turns what is raised inside, by the code of a config file, into one line that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        if isinstance(error, SyntaxError) and error.filename == str(file):
            lines.append(error.lineno)
        line = f", line {lines[-1]}" if lines and lines[-1] else ""
        if isinstance(error, ConfigError) and str(error).startswith("--"):
            raise  # of an option: the command line is to be changed, not the file
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        reason = error.msg if isinstance(error, SyntaxError) else error
        unknown = _UNKNOWN.fullmatch(str(error)) if isinstance(error, TypeError) else None
        if unknown and unknown[1] in CLASSES:
            kind, reason = "", no_field(unknown[2], unknown[2], unknown[1])
        raise ConfigError(f"{file}{line}: {kind}{reason}") from error


_UNKNOWN = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
"""What Python says of a setting that a class does not have."""
