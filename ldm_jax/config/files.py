"""Configs in files: the Python files of `configs/`, and JSON."""

import dataclasses
import difflib
import json
import runpy
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ldm_jax.config.checks import ConfigError, matches
from ldm_jax.config.model import Model
from ldm_jax.config.older import upgraded
from ldm_jax.config.runs import Run


def load(path: str | Path) -> Run:
    """What `get_config()` of the Python file `path` returns; of `FILE:NAME`, `get_config(NAME)`.

    Raises:
        ConfigError: no such file, no such function in it, or no such name.
    """
    file, _, name = str(path).partition(".py:")
    file = f"{file}.py" if name else file
    if not Path(file).is_file():
        raise ConfigError(f"--config={path}: there is no such file; see configs/")
    module = runpy.run_path(file)
    if "get_config" not in module:
        raise ConfigError(f"--config={path} defines no get_config()")
    run = _call(module["get_config"], name, module.get("NAMES", ()), path)
    if not isinstance(run, Run):
        names = " or ".join(kind.__name__ for kind in typing.get_args(Run))
        raise ConfigError(
            f"get_config() of --config={path} returns a {type(run).__name__}; it must return "
            f"one of {names}"
        )
    return run


def _call(get_config: Callable[..., Any], name: str, names: Iterable[str], path: Any) -> Any:
    """The config of that name; files without `NAMES` have but one, without a name."""
    names = tuple(names)
    if name in names:
        return get_config(name)
    if not names and not name:
        return get_config()
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
    """The config that `to_json` wrote, of this version or an earlier one.

    Raises:
        ConfigError: unknown class, unknown or missing field, a value of the wrong type, or
            whatever the config's own checks refuse.
    """
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"the config is not valid JSON: {error}") from error
    return _from_dict(value, "config")


def _to_dict(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type(value).__name__} | fields
    return list(value) if isinstance(value, tuple) else value


def _from_dict(value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        return tuple(value) if isinstance(value, list) else value
    value = upgraded(value)
    name = value.get("type")
    if name not in _CLASSES:
        raise ConfigError(f"{where}.type is {name!r}; known are {', '.join(_CLASSES)}")
    cls = _CLASSES[name]
    hints = typing.get_type_hints(cls)
    arguments = {}
    for key in value.keys() - {"type"}:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"perhaps you meant {close[0]!r}" if close else f"it has {', '.join(hints)}"
            raise ConfigError(f"{where}.{key} is no field of {name}; {hint}")
        arguments[key] = _from_dict(value[key], f"{where}.{key}")
        _check_type(arguments[key], hints[key], f"{where}.{key}")
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error


def _check_type(value: Any, hint: Any, where: str) -> None:
    """Raises ConfigError unless `value` is of the annotated type `hint`."""
    if not matches(value, hint):
        raise ConfigError(f"{where} is {value!r}; it must be of type {hint}")
