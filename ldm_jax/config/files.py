"""Configs in files: the Python files of `configs/`, and JSON."""

import dataclasses
import difflib
import json
import runpy
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from ldm_jax.config.bottlenecks import FSQ, KL, LFQ, VQ, Gumbel
from ldm_jax.config.checks import ConfigError
from ldm_jax.config.conditions import (
    BERTText,
    ClassCondition,
    CLIPText,
    TextCondition,
    TextTransformer,
    Unconditional,
)
from ldm_jax.config.data import Data, DigitScenes, EncodedLatents, ImageFolder
from ldm_jax.config.model import Diffusion, Model
from ldm_jax.config.models import Autoencoder, Pixels, UNet
from ldm_jax.config.runs import AutoencoderRun, DiffusionRun, Run
from ldm_jax.config.stage_one import Adversarial, AutoencoderLoss, Perceptual
from ldm_jax.config.training import Loop, Mesh, Optim


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
    if not isinstance(run, AutoencoderRun | DiffusionRun):
        raise ConfigError(
            f"get_config() of --config={path} returns a {type(run).__name__}; it must return an "
            "AutoencoderRun or a DiffusionRun"
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
    allowed = " or ".join(f"{file}:{n}" for n in names) or str(file)
    raise ConfigError(f"--config={path}: there is no such config; it must be {allowed}")


_CLASSES = {
    cls.__name__: cls
    for cls in (
        DigitScenes, ImageFolder, EncodedLatents, Data, KL, VQ, Gumbel, FSQ, LFQ, Autoencoder,
        Pixels, UNet, TextTransformer, CLIPText, BERTText, Unconditional, ClassCondition,
        TextCondition, Perceptual, Adversarial, AutoencoderLoss, Diffusion, Optim, Mesh, Loop,
        AutoencoderRun, DiffusionRun, Model,
    )
}  # fmt: skip


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
