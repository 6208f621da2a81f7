"""Configs in files: the Python files of `configs/`, and JSON."""

import dataclasses
import difflib
import json
import runpy
import types
import typing
from pathlib import Path
from typing import Any, Literal

from ldm_jax.config.checks import ConfigError
from ldm_jax.config.conditions import (
    BERTText,
    ClassCondition,
    CLIPText,
    TextCondition,
    TextTransformer,
    Unconditional,
)
from ldm_jax.config.data import Data, DigitScenes, ImageFolder
from ldm_jax.config.model import Diffusion, Model
from ldm_jax.config.models import Autoencoder, UNet
from ldm_jax.config.older import upgraded
from ldm_jax.config.processes import EDM, VE, VP, Discrete, RectifiedFlow, SubVP
from ldm_jax.config.runs import AutoencoderRun, DiffusionRun, Run
from ldm_jax.config.training import AutoencoderLoss, Loop, Mesh, Optim


def load(path: str | Path) -> Run:
    """What `get_config()` of the Python file `path` returns.

    Raises:
        ConfigError: no such file, or no such function in it.
    """
    if not Path(path).is_file():
        raise ConfigError(f"--config={path}: there is no such file; see configs/")
    module = runpy.run_path(str(path))
    if "get_config" not in module:
        raise ConfigError(f"--config={path} defines no get_config()")
    run = module["get_config"]()
    if not isinstance(run, AutoencoderRun | DiffusionRun):
        raise ConfigError(
            f"get_config() of --config={path} returns a {type(run).__name__}; it must return an "
            "AutoencoderRun or a DiffusionRun"
        )
    return run


_CLASSES = {
    cls.__name__: cls
    for cls in (
        DigitScenes, ImageFolder, Data, Autoencoder, UNet, TextTransformer, CLIPText, BERTText,
        Unconditional, ClassCondition, TextCondition, AutoencoderLoss, Diffusion, Optim, Mesh,
        Loop, AutoencoderRun, DiffusionRun, Model, Discrete, VP, SubVP, VE, EDM, RectifiedFlow,
    )
}  # fmt: skip


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
            hint = f"; perhaps you meant {close[0]!r}" if close else ""
            raise ConfigError(f"{where}.{key} is no field of {name}{hint}")
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


def matches(value: Any, hint: Any) -> bool:
    """Whether `value` is of the annotated type `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(matches(v, args[0]) for v in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
