"""How configs refuse what cannot work."""

import types
import typing
from typing import Any, Literal


class ConfigError(ValueError):
    """A setting, or a relation between settings, that cannot work."""


def require(ok: bool, where: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{where} is {value!r}; it must be {allowed}")


def require_positive(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(value > 0, f"{type(config).__name__}.{name}", value, "greater than 0")


def require_fraction(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        require(0 <= value <= 1, f"{type(config).__name__}.{name}", value, "between 0 and 1")


def require_groups(name: str, channels: tuple[int, ...], groups: int) -> None:
    require(
        len(channels) > 0 and groups > 0 and all(c > 0 and c % groups == 0 for c in channels),
        f"{name}.block_out_channels",
        channels,
        f"at least one entry, each a multiple of norm_num_groups {groups}",
    )


def require_divisible(where: str, value: int, divisor: int, what: str) -> None:
    require(value % divisor == 0, where, value, f"a multiple of {divisor}, {what}")


def matches(value: Any, hint: Any) -> bool:
    """Whether `value` is of the annotated type `hint`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple:
        return isinstance(value, tuple) and all(matches(v, args[0]) for v in value)
    if origin is not None:
        return isinstance(value, origin)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
