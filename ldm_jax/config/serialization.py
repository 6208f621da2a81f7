"""Configs as JSON text, which names the class of every object."""

import dataclasses
import difflib
import json
import typing
from collections.abc import Iterable
from typing import Any

from ldm_jax.config.autoregressive import CodeModel
from ldm_jax.config.checks import ConfigError, field_hints, matches, told
from ldm_jax.config.model import Model
from ldm_jax.config.runs import Run
from ldm_jax.core.reading import FileFormatError, parse_json


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


CLASSES = _reachable([Run, Model, CodeModel])
"""All classes that a config is made of, by name."""


def no_field(where: str, key: str, kind: str) -> str:
    """The sentence that refuses the setting `key` of the class called `kind`."""
    hints = field_hints(CLASSES[kind])
    close = difflib.get_close_matches(key, hints, n=1)
    hint = f"perhaps you meant {close[0]!r}" if close else f"it has {', '.join(hints)}"
    return f"{where} is no field of {kind}; {hint}"


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
    if not isinstance(name, str) or name not in CLASSES:
        raise ConfigError(f"{where}.type is {name!r}; known are {', '.join(CLASSES)}")
    cls = CLASSES[name]
    hints = field_hints(cls)
    arguments = {}
    for key in value.keys() - {"type"}:
        if key not in hints:
            raise ConfigError(no_field(f"{where}.{key}", key, name))
        arguments[key] = _from_dict(value[key], f"{where}.{key}")
        if not matches(arguments[key], hints[key]):
            raise ConfigError(told(f"{where}.{key}", arguments[key], hints[key]))
    try:
        return cls(**arguments)
    except TypeError as error:
        raise ConfigError(f"{where}: {error}") from error
