"""How settings refuse what cannot work: each field by its type and range, then how they fit."""

import dataclasses
import types
import typing
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar


class ConfigError(ValueError):
    """A setting, or a relation between settings, that cannot work."""


# ------------------------------------------------------------------------------------- ranges


@dataclasses.dataclass(frozen=True)
class Within:
    """What a number may be: from `low` to `high`, without these where they are excluded.

    No number and infinity are never within.
    """

    low: float | int
    high: float | int
    above: bool = False
    """Whether `low` itself is excluded."""
    below: bool = False
    """Whether `high` itself is excluded."""

    def holds(self, value: float | int) -> bool:
        """Whether `value` may be."""
        lowest = self.low < value if self.above else self.low <= value
        return lowest and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low, high = (f"{n:g}" if isinstance(n, float) else f"{n}" for n in (self.low, self.high))
        first = f"above {low}" if self.above else f"of at least {low}"
        return f"{first} and {'below' if self.below else 'at most'} {high}"


# Sizes are bounded so that what no machine has is refused by its numbers, before anything is built.
Count = Annotated[int, Within(1, 2**31 - 1)]
CountOrNone = Annotated[int, Within(0, 2**31 - 1)]
Seed = Annotated[int, Within(0, 2**32 - 1)]
Side = Annotated[int, Within(1, 16384)]
"""Pixels or latents along a side."""
ImageSize = Side | tuple[Side, Side]
"""Pixels of an image: one number for a square, or (height, width) where they differ."""
Width = Annotated[int, Within(1, 65536)]
"""Channels, units, positions."""
Depth = Annotated[int, Within(1, 64)]
"""Layers one after the other; each takes its time to be traced and compiled."""
Entries = Annotated[int, Within(1, 2**24)]
"""Rows of a table that is looked up: words, codes, classes."""
# Numbers are computed with in float32, which holds 1e-38 to 3e38.
Positive = Annotated[float, Within(1e-30, 1e30)]
Finite = Annotated[float, Within(-1e30, 1e30)]
Weight = Annotated[float, Within(0.0, 1e30)]
Share = Annotated[float, Within(0.0, 1.0)]
Decay = Annotated[float, Within(0.0, 1.0, below=True)]
"""Of a moving average, which 1 would never move; or a share that must leave something."""
LearningRate = Annotated[float, Within(1e-30, 1000.0)]
LogRatio = Annotated[float, Within(-50.0, 50.0)]
"""A logarithm whose exponential float32 holds."""

_MAX_BLOCKS = 1024

Class = TypeVar("Class", bound=type)


@typing.dataclass_transform(frozen_default=True)
def settings(cls: Class) -> Class:
    """A frozen dataclass that checks the type and range of every field when it is made.

    Ranges are declared in the fields' types; `__post_init__` of the class checks relations.
    """
    relations = getattr(cls, "__post_init__", None)

    def __post_init__(self: Any) -> None:
        check_fields(self)
        if relations is not None:
            relations(self)

    cls.__post_init__ = __post_init__
    return dataclasses.dataclass(frozen=True)(cls)


def check_fields(config: Any, prefix: str | None = None) -> None:
    """Raises ConfigError unless every field is what its annotation says; the error has the class
    before the field's name, or `prefix`."""
    prefix = f"{type(config).__name__}." if prefix is None else prefix
    for name, hint in field_hints(type(config)).items():
        value = getattr(config, name)
        if not matches(value, hint):
            raise ConfigError(told(f"{prefix}{name}", value, hint))


@cache
def field_hints(cls: type) -> dict[str, Any]:
    """Field → annotation, ranges included."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def matches(value: Any, hint: Any) -> bool:
    """Whether `value` is of the annotated type `hint`, and within its range if it has one."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        ranges = [extra for extra in args[1:] if isinstance(extra, Within)]
        return matches(value, args[0]) and all(
            value is None or extra.holds(value) for extra in ranges
        )
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, arg) for arg in args)
    if origin is Literal:
        return any(value == arg and type(value) is type(arg) for arg in args)
    if origin is tuple:
        kinds = _entries(value, args) if isinstance(value, tuple) else None
        return kinds is not None and all(map(matches, value, kinds))
    if origin is not None:
        return isinstance(value, origin)
    if hint is Any:
        return True
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _entries(value: tuple[Any, ...], args: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The annotation of each entry of a tuple; None where it has another number of them."""
    if args[-1] is Ellipsis:
        return args[:1] * len(value)
    return args if len(value) == len(args) else None


def told(where: str, value: Any, hint: Any) -> str:
    """The sentence that refuses `value`."""
    text = repr(value)
    return f"{where} is {text if len(text) < 80 else text[:77] + '...'}; it must be {allowed(hint)}"


def allowed(hint: Any) -> str:
    """What an annotation allows, in words."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return " ".join([allowed(args[0]), *(str(x) for x in args[1:] if isinstance(x, Within))])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(allowed(arg) for arg in sorted(args, key=lambda a: a is not NoneType))
    if origin is Literal:
        return f"one of {', '.join(map(repr, args))}"
    if origin is tuple:
        what = "a tuple" if args[-1] is Ellipsis else f"a tuple of {len(args)}"
        return f"{what}, each entry {allowed(args[0])}"
    names = {int: "a whole number", float: "a number", bool: "True or False", str: "text",
             Path: "a file or folder", NoneType: "None"}  # fmt: skip
    return names.get(hint, getattr(hint, "__name__", str(hint)))


# ---------------------------------------------------------------------------------- relations


def require(ok: bool, where: str, value: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{where} is {value!r}; it must be {allowed}")


def require_groups(name: str, channels: tuple[int, ...], groups: int) -> None:
    require(
        0 < len(channels) <= 12 and all(c % groups == 0 for c in channels),
        f"{name}.block_out_channels",
        channels,
        f"one to twelve entries, each a multiple of norm_num_groups {groups}",
    )


def require_blocks(name: str, levels: int, layers_per_block: int, transformers: int = 1) -> None:
    """Refuses networks of so many blocks that tracing them takes minutes."""
    require(
        levels * layers_per_block * transformers <= _MAX_BLOCKS // 2,
        f"{name}.layers_per_block",
        layers_per_block,
        f"less: over {levels} levels these are more than the {_MAX_BLOCKS} blocks of any network "
        "that is built",
    )


def require_divisible(where: str, value: int | tuple[int, int], divisor: int, what: str) -> None:
    """Refuses a number, or a height and width, that are no multiples of `divisor`, `what`; the
    nearest ones are named."""
    sides = value if isinstance(value, tuple) else (value, value)
    wrong = [side for side in dict.fromkeys(sides) if side % divisor]
    near = [multiples_beside(side, divisor) for side in wrong]
    require(not wrong, where, image_size(*sides),
            f"a multiple of {divisor}, {what}: {', '.join(near)}")  # fmt: skip


def multiples_beside(number: int, divisor: int) -> str:
    """The multiples of `divisor` below and above `number`, in words."""
    below = number // divisor * divisor
    return f"{below} or {below + divisor}" if below else f"{divisor}"


def image_size(height: int, width: int) -> int | tuple[int, int]:
    """A height and a width as the `ImageSize` of a setting."""
    return height if height == width else (height, width)


def height_and_width(where: str, image_size: int | tuple[int, int]) -> tuple[int, int]:
    """Both sides of images of that size.

    Raises:
        ConfigError: a square is not written as one number.
    """
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    require(height != width, where, image_size, f"{height}, one number for a square")
    return height, width
