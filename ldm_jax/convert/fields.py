"""Settings of a diffusers or transformers JSON file, each of them accounted for."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import read_json

MOST = 2**31 - 1
"""No size or count of any model is larger."""
_NOTHING = (None, False)
_SHOWN = 120


class Fields:
    """One JSON object; every field must be taken, checked or ignored by name.

    What nobody asked for is refused when it is closed, unless it says nothing: null, false, or a
    name that begins with `_`. So a setting that changes what is computed can never be missed.
    """

    def __init__(self, path: Path, values: dict[str, Any]) -> None:
        self.path = path
        self._values = values
        self._seen: set[str] = set()

    @classmethod
    def read(cls, path: Path) -> "Fields":
        """The object in the file `path`.

        Raises:
            FileFormatError: there is no such file, or it is not a JSON object.
        """
        return cls(path, read_json(path))

    @contextmanager
    def naming(self) -> Iterator[None]:
        """What is made in here of the fields, if it cannot be, is refused with the file's name."""
        try:
            yield
        except cfg.ConfigError as error:
            raise ConvertError(f"{self.path}: {error}") from error

    def error(self, name: str, allowed: str) -> ConvertError:
        value = _said(self._values.get(name))
        return ConvertError(f"{self.path}: {name} is {value}; it must be {allowed}")

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def get(self, name: str, default: Any) -> Any:
        """A value of any type, or `default` where the file has none."""
        self._seen.add(name)
        return self._values.get(name, default)

    def text(self, name: str) -> str:
        """A word, which the file must have."""
        value = self.get(name, None)
        if not isinstance(value, str):
            raise self.error(name, "a text")
        return value

    def whole(self, name: str, default: int | None = None) -> int:
        """A whole number from 1 on; without a `default` the file must have it."""
        value = self.get(name, default)
        if not _is_size(value):
            raise self.error(name, "a whole number, 1 or more")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """A number; without a `default` the file must have it."""
        value = self.get(name, default)
        if type(value) not in (int, float) or not abs(value) < float(MOST):
            raise self.error(name, "a number")
        return float(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        """A list of `count` numbers, which the file must have."""
        values = self.get(name, None)
        if (
            not isinstance(values, list) or len(values) != count
            or not all(type(n) in (int, float) and abs(n) < float(MOST) for n in values)
        ):  # fmt: skip
            raise self.error(name, f"a list of {count} numbers")
        return tuple(map(float, values))

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self.get(name, default)
        if type(value) is not bool:
            raise self.error(name, "true or false")
        return value

    def wholes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of whole numbers from 1 on."""
        values = self.get(name, list(default))
        if not isinstance(values, list) or not all(map(_is_size, values)):
            raise self.error(name, "a list of whole numbers, 1 or more")
        return tuple(values)

    def each(self, name: str, default: int, count: int) -> tuple[int, ...]:
        """One whole number for all levels, or a list with one for each."""
        value = self.get(name, default)
        values = value if isinstance(value, list) else [value] * count
        if len(values) != count or not all(map(_is_size, values)):
            raise self.error(name, f"a whole number, 1 or more, or a list of {count}")
        return tuple(values)

    def texts(self, name: str, default: tuple[str, ...], allowed: Collection[str]) -> list[str]:
        """A list of words, each one of `allowed`."""
        values = self.get(name, list(default))
        words = isinstance(values, list) and all(isinstance(value, str) for value in values)
        if not words or not all(value in allowed for value in values):
            raise self.error(name, f"a list of {', '.join(allowed)}; others are not supported")
        return values

    def choice(self, name: str, default: Any, allowed: dict[Any, Any]) -> Any:
        """What `allowed` maps the value to."""
        value = self.get(name, default)
        if isinstance(value, list | dict) or value not in allowed:
            listed = ", ".join(json.dumps(a) for a in allowed)
            raise self.error(name, f"one of {listed}; others are not supported")
        return allowed[value]

    def only(self, levels: int = 0, **supported: Any) -> None:
        """Checks fields of which one value is supported, which is also their default; a list may
        say it once for each of `levels`."""
        for name, value in supported.items():
            found = self.get(name, value)
            if isinstance(found, list) and len(found) == levels and all(
                one == found[0] and type(one) is type(found[0]) for one in found
            ):  # fmt: skip
                found = found[0]
            same = found == value and isinstance(found, bool) == isinstance(value, bool)
            if not (same or (value in _NOTHING and found in _NOTHING)):
                raise self.error(name, f"{json.dumps(value)}, the only value that is supported")

    def ignore(self, *names: str) -> None:
        """Marks fields that change nothing of what is computed here."""
        self._seen.update(names)

    def close(self) -> None:
        """Raises ConvertError for a field that says something and that nobody knows."""
        for name, value in self._values.items():
            silent = name.startswith("_") or value is None or value is False
            if name not in self._seen and not silent:
                raise ConvertError(
                    f"{self.path}: {name} is {_said(value)}; ldm_jax does not know this setting, "
                    "which may change what the model computes. If it does not, remove it from "
                    "the file"
                )


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 < value <= MOST


def _said(value: Any) -> str:
    """A value as the file has it, cut where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
