"""Configs in files: the Python files of `configs/`, and JSON."""

import dataclasses
import difflib
import json
import re
import runpy
import traceback
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ldm_jax.config.checks import ConfigError, field_hints, matches, told
from ldm_jax.config.model import Model
from ldm_jax.config.runs import Run
from ldm_jax.core.reading import FileFormatError, open_file, parse_json


def load(path: str | Path) -> Run:
    """What `get_config()` of the Python file `path` returns; of `FILE:NAME`, `get_config(NAME)`.

    Raises:
        ConfigError: no such file, no such function in it, no such name, or an error in the file,
            with its line.
    """
    file, _, name = str(path).partition(".py:")
    file = f"{file}.py" if name else file
    try:
        open_file(file).close()
    except FileFormatError as error:
        raise ConfigError(f"--config={path} {error.args[1]}; see configs/") from error
    with _its_errors(file):
        module = runpy.run_path(file)
    if not callable(module.get("get_config")):
        raise ConfigError(f"--config={path} defines no get_config()")
    with _its_errors(file):
        names = tuple(module.get("NAMES", ()))
    _check_name(name, names, path)
    with _its_errors(file):
        run = module["get_config"](*([name] if name else []))
    if not isinstance(run, Run):
        names = " or ".join(kind.__name__ for kind in typing.get_args(Run))
        raise ConfigError(
            f"get_config() of --config={path} returns a {type(run).__name__}; it must return "
            f"one of {names}"
        )
    return run


@contextmanager
def _its_errors(file: str) -> Iterator[None]:
    """Turns what is raised inside, by the code of a config file, into one line that says where."""
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == file]
        if isinstance(error, SyntaxError) and error.filename == file:
            lines.append(error.lineno)
        line = f", line {lines[-1]}" if lines and lines[-1] else ""
        kind = "" if isinstance(error, ConfigError) else f"{type(error).__name__}: "
        reason = error.msg if isinstance(error, SyntaxError) else error
        unknown = _UNKNOWN.fullmatch(str(error)) if isinstance(error, TypeError) else None
        if unknown and unknown[1] in _CLASSES:
            kind, reason = "", _no_field(unknown[2], unknown[2], unknown[1])
        raise ConfigError(f"{file}{line}: {kind}{reason}") from error


_UNKNOWN = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
"""What Python says of a setting that a class does not have."""


def _no_field(where: str, key: str, kind: str) -> str:
    """The sentence that refuses the setting `key` of the class called `kind`."""
    hints = field_hints(_CLASSES[kind])
    close = difflib.get_close_matches(key, hints, n=1)
    hint = f"perhaps you meant {close[0]!r}" if close else f"it has {', '.join(hints)}"
    return f"{where} is no field of {kind}; {hint}"


def _check_name(name: str, names: tuple[str, ...], path: str | Path) -> None:
    """Raises ConfigError unless the file has a config of that name; without `NAMES` it has but
    one, without a name."""
    if name in names or (not names and not name):
        return
    file = str(path).removesuffix(f":{name}") if name else path
    allowed = f"{file}:NAME with one of the names {', '.join(names)}" if names else str(file)
    raise ConfigError(f"--config={path}: there is no such config; it must be {allowed}")


def _reachable(kinds: Iterable[Any]) -> dict[str, type]:
    """By name, the dataclasses among `kinds` and among the types of their fields, and so on."""
    found: dict[str, type] = {}
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        if not dataclasses.is_dataclass(kind):
            waiting += typing.get_args(kind)
        elif kind.__name__ not in found:
            found[kind.__name__] = kind
            waiting += typing.get_type_hints(kind).values()
    return found


_CLASSES = _reachable([Run, Model])


def to_json(config: Any) -> str:
    """The config as JSON text; every object names its class under `type`."""
    return json.dumps(_to_dict(config), indent=2) + "\n"


def from_json(text: str) -> Any:
    """The config that `to_json` wrote.

    Raises:
        ConfigError: unknown class, unknown or missing field, a value of the wrong type, or
            whatever the config's own checks refuse.
    """
    try:
        value = parse_json("config", "it", text)
    except FileFormatError as error:
        raise ConfigError(f"the config cannot be read: {error.args[1]}") from error
    return _from_dict(value, "config")


def _to_dict(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields
    return [_to_dict(item) for item in value] if isinstance(value, tuple) else value


def _from_dict(value: Any, where: str) -> Any:
    if isinstance(value, list):
        return tuple(_from_dict(item, f"{where}.{i}") for i, item in enumerate(value))
    if not isinstance(value, dict):
        return value
    name = value.get("type")
    if not isinstance(name, str) or name not in _CLASSES:
        raise ConfigError(f"{where}.type is {name!r}; known are {', '.join(_CLASSES)}")
    cls = _CLASSES[name]
    hints = field_hints(cls)
    arguments = {}
    for key in value.keys() - {"type"}:
        if key not in hints:
            raise ConfigError(_no_field(f"{where}.{key}", key, name))
        arguments[key] = _from_dict(value[key], f"{where}.{key}")
        if not matches(arguments[key], hints[key]):
            raise ConfigError(told(f"{where}.{key}", arguments[key], hints[key]))
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error
