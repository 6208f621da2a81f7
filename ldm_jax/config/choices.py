"""Parts of a config that are of one of several kinds, or absent: chosen by words such as
`--diffusion.process=RectifiedFlow` or `--loss.adversarial=None`."""

import copy
import dataclasses
import types
import typing
from collections.abc import Collection, Iterator, Sequence
from types import NoneType
from typing import Any

from ldm_jax.config.checks import ConfigError, field_hints
from ldm_jax.config.setting_words import path_of, positive, unknown


@dataclasses.dataclass(frozen=True)
class Part:
    """One such part of a config."""

    path: str
    """Where it is: `loss.adversarial`."""
    kinds: tuple[type, ...]
    """What it may be; NoneType where it may be absent."""
    many: bool
    """Whether it is a tuple of such, of any number."""
    value: Any

    @property
    def allowed(self) -> str:
        """What it may be, in words."""
        names = " or ".join(_name(kind) for kind in self.kinds)
        return f"{names}, with commas between several, or None" if self.many else names

    @property
    def now(self) -> str:
        """What it is, in words."""
        values = self.value if self.many else (self.value,)
        return ",".join(_name(type(value)) for value in values) or "None"


def parts(config: Any) -> dict[str, Part]:
    """All parts of `config` of which there are several kinds, by their path."""
    return {part.path: part for part in _parts(config, "")}


def leaves(config: Any) -> dict[str, Any]:
    """The annotation of each single setting of `config`, by its path."""
    return dict(_leaves(config, ""))


def choose(
    config: Any, words: Sequence[str], others: Collection[str] = ()
) -> tuple[Any, list[str]]:
    """`config` with the parts that `words` choose, and the other words.

    A part that is of that kind already stays as it is; another has the defaults of its class.
    The result is checked once the other words have been read. `others` are as in
    `setting_words.check_words`.

    Raises:
        ConfigError: a kind that there is not, or a setting of a part that is absent or of another
            kind, or a setting that there is not.
    """
    rest: list[str] = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        option, sign, text = word.partition("=")
        part = parts(config).get(path_of(option)) if option.startswith("--") else None
        if part is None or "." in text:
            rest.append(word)
            continue
        if not sign:
            raise ConfigError(f"{option} {following}: write {option}=KIND with {part.allowed}")
        config = _put(config, part.path.split("."), _made(part, text))
    _check_paths(config, rest, others)
    return config, rest


def _parts(config: Any, prefix: str) -> Iterator[Part]:
    for name, hint in field_hints(type(config)).items():
        path, value = f"{prefix}{name}", getattr(config, name)
        many = typing.get_origin(hint) is tuple
        kinds = _kinds(typing.get_args(hint)[0] if many else hint)
        if len(kinds) > 1 and any(map(dataclasses.is_dataclass, kinds)):
            yield Part(path, kinds, many, value)
        for below, one in _entries(path, value):
            yield from _parts(one, f"{below}.")


def _entries(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The dataclasses in the value of a field, by their path."""
    if dataclasses.is_dataclass(value):
        yield path, value
    elif isinstance(value, tuple):
        for i, one in enumerate(value):
            yield from _entries(f"{path}.{i}", one)


def _kinds(hint: Any) -> tuple[type, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return tuple(kind for kind in typing.get_args(hint) if isinstance(kind, type)) if union else ()


def _name(kind: type) -> str:
    return "None" if kind is NoneType else kind.__name__


def _made(part: Part, text: str) -> Any:
    """What `text` names, in place of the value of `part`."""
    known = {_name(kind).lower(): kind for kind in part.kinds}
    present = {type(value): value for value in (part.value if part.many else (part.value,))}
    made = []
    for name in filter(None, text.split(",")):
        kind = NoneType if name == "None" and part.many else known.get(name.strip().lower())
        if kind is None:
            raise ConfigError(f"--{part.path}={text}: it must be {part.allowed}")
        if kind is not NoneType or not part.many:
            made.append(present[kind] if kind in present else kind())
    if not part.many and len(made) != 1:
        raise ConfigError(f"--{part.path}={text}: it must be {part.allowed}")
    return tuple(made) if part.many else None if isinstance(made[0], NoneType) else made[0]


def _put(config: Any, path: Sequence[str], value: Any) -> Any:
    """`config` with another value at `path`; not checked, as what fits it may come later."""
    if not path:
        return value
    first, *below = path
    if isinstance(config, tuple):
        at = int(first)
        return (*config[:at], _put(config[at], below, value), *config[at + 1 :])
    changed = copy.copy(config)
    object.__setattr__(changed, first, _put(getattr(config, first), below, value))
    return changed


# ------------------------------------------------------------------------------ words that fit


def _leaves(config: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name, hint in field_hints(type(config)).items():
        path, value = f"{prefix}{name}", getattr(config, name)
        entries = list(_entries(path, value))
        # tyro's name="" leaves the field's own name out of the paths.
        unnamed = any(getattr(x, "name", None) == "" for x in getattr(hint, "__metadata__", ()))
        for below, one in entries:
            yield from _leaves(one, prefix if unnamed else f"{below}.")
        if not entries:
            yield path, hint


def _check_paths(config: Any, words: Sequence[str], others: Collection[str]) -> None:
    """Raises ConfigError for a word that names no setting of `config`."""
    known, choosable = leaves(config), parts(config)
    for word in words:
        option = word.partition("=")[0]
        path = path_of(option)
        if not option.startswith("--") or {path, positive(path)} & {*known, "help"}:
            continue
        above = [path.rsplit(".", n)[0] for n in range(1, path.count(".") + 1)]
        part = next((choosable[name] for name in above if name in choosable), None)
        if part is not None and any(_has(kind, path, part) for kind in part.kinds):
            kinds = " or ".join(_name(kind) for kind in part.kinds if _has(kind, path, part))
            raise ConfigError(
                f"{option}: {part.path} is {part.now}, which has no such setting; choose "
                f"--{part.path}={kinds} too"
            )
        names = [*known, *choosable, *others]
        where = "with --config=..., --help lists them"
        raise unknown(option, names, "setting of this config", where)


def _has(kind: type, path: str, part: Part) -> bool:
    """Whether a part of that kind would have the setting at `path`."""
    names = path.removeprefix(f"{part.path}.").split(".")
    name = names[1] if part.many and names[0].isdecimal() and len(names) > 1 else names[0]
    return dataclasses.is_dataclass(kind) and name in field_hints(kind)
