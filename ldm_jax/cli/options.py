"""The options of a command that stand for fields of dataclasses: read from words, told in a help
text. Names, types, defaults and descriptions are those of the fields."""

import ast
import difflib
import inspect
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

from ldm_jax.config.checks import ConfigError
from ldm_jax.core.stores import NoStore, as_path

WIDTH, COLUMN = 98, 30
"""Of the help text: columns, and the first one of the descriptions."""
_KINDS = {int: "a whole number", float: "a number", Path: "a file or folder", str: "text"}
_SHORT = {int: "N", float: "X", Path: "PATH", str: "TEXT"}


class OptionError(ConfigError):
    """An option that does not exist, or a value that it cannot have."""


@dataclass(frozen=True)
class Option:
    """One field as an option."""

    name: str
    """Of the field."""
    kind: type
    """Of its value, or of each of its values: bool, int, float, str or Path."""
    many: bool
    """Whether it takes several values."""
    optional: bool
    """Whether it may be None."""
    default: Any
    doc: str
    aliases: tuple[str, ...] = ()
    """Other names for it; the first one is told first."""
    choices: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The option as the help text and messages have it."""
        return f"--{(*self.aliases, self.name)[0]}"

    def read(self, typed: str, texts: Sequence[str]) -> Any:
        """The value that `texts` are, behind the option as it was `typed`."""
        if self.optional and [*texts] == ["None"]:
            return None
        try:
            read = as_path if self.kind is Path else self.kind
            values = tuple(read(text) for text in texts)
        except NoStore as error:
            raise OptionError(f"{typed}: {error}") from error
        except ValueError:
            wrong = next(text for text in texts if not _is(self.kind, text))
            raise OptionError(f"{typed} is {wrong!r}; it must be {_KINDS[self.kind]}") from None
        return values if self.many else values[0]


def _is(kind: type, text: str) -> bool:
    try:
        kind(text)
    except ValueError:
        return False
    return True


@cache
def options_of(*kinds: type) -> dict[str, Option]:
    """The options for all fields of some dataclasses, by the fields' names.

    Fields that are dataclasses themselves, or whose metadata say `hidden`, are none.
    """
    found = {}
    for kind in kinds:
        hints, docs = typing.get_type_hints(kind, include_extras=True), _docs(kind)
        for f in fields(kind):
            if f.name in docs and not f.metadata.get("hidden"):
                default = f.default if f.default_factory is MISSING else f.default_factory()
                found[f.name] = _option(f.name, hints[f.name], default, docs[f.name])
    return found


def _option(name: str, hint: Any, default: Any, doc: str) -> Option:
    extras: list[Any] = []
    parts = [hint]
    kinds: list[type] = []
    many = False
    while parts:
        part = parts.pop()
        arguments = typing.get_args(part)
        if hasattr(part, "__metadata__"):
            extras += part.__metadata__
            parts.append(arguments[0])
        elif typing.get_origin(part) is tuple:
            many = True
            parts.append(arguments[0])
        elif arguments:
            parts += arguments
        else:
            kinds.append(part)
    (kind,) = (k for k in kinds if k is not NoneType)
    aliases = [a.lstrip("-") for e in extras for a in getattr(e, "aliases", None) or ()]
    metavars = [m for e in extras if (m := getattr(e, "metavar", None))]
    choices = metavars[0].strip("{}").split(",") if metavars else ()
    return Option(name, kind, many, NoneType in kinds, default, doc, tuple(aliases), tuple(choices))


def _docs(kind: type) -> dict[str, str]:
    """The text that stands below each field of a dataclass."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found = {}
    for node, following in zip(tree.body, tree.body[1:], strict=False):
        match node, following:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


# ------------------------------------------------------------------------------------- reading


def read(words: Sequence[str], options: Mapping[str, Option]) -> tuple[dict[str, Any], dict]:
    """What command-line words say: values by the fields' names, and how each option was typed.

    `--name=VALUE` or `--name VALUE`; a switch is `--name`, `--no-name` or `--name=False`; lists
    are `--name A B`, and go on where the option is there again. `_` and `-` are the same.

    Raises:
        OptionError: names the option as it was typed.
    """
    spelled = spellings(options)
    values: dict[str, Any] = {}
    typed: dict[str, str] = {}
    rest = [*words]
    while rest:
        word, sign, value = rest.pop(0).partition("=")
        if not word.startswith("--"):
            raise _alone(word + sign + value)
        option = spelled.get(word[2:].replace("-", "_"))
        if option is None:
            raise _unknown(word, spelled)
        typed[option.name] = word
        if option.kind is bool:
            values[option.name] = _switch(word, value if sign else None)
            continue
        texts = [value] if sign else []
        while not sign and rest and not rest[0].startswith("--") and (option.many or not texts):
            texts.append(rest.pop(0))
        if not texts and not option.many:
            raise OptionError(f"{word} has no value; it must be {_KINDS[option.kind]}")
        read = option.read(word, texts)
        earlier = values.get(option.name) or ()
        values[option.name] = (*earlier, *read) if option.many and read is not None else read
    return values, typed


def spellings(options: Mapping[str, Option]) -> dict[str, Option]:
    """Each option by all names that may stand behind `--`, with `_`."""
    found = {}
    for option in options.values():
        for name in (option.name, *option.aliases):
            found |= {name: option} | ({f"no_{name}": option} if option.kind is bool else {})
    return found


def _switch(word: str, value: str | None) -> bool:
    on = not word.startswith(("--no-", "--no_"))
    if value is None or value.lower() == "true":
        return on
    if value.lower() == "false":
        return not on
    raise OptionError(f"{word} is {value!r}; it is a switch: {word}, or {word}=False")


def _alone(word: str) -> OptionError:
    return OptionError(
        f"{word!r} belongs to no option; put a value of several words in quotes, such as "
        '--prompt="a red cat"'
    )


def _unknown(word: str, spelled: Mapping[str, Option]) -> OptionError:
    near = difflib.get_close_matches(word[2:].replace("-", "_"), spelled, n=3, cutoff=0.6)
    # An option with two names is one.
    shown = (f"--{name}" if name.startswith("no_") else spelled[name].shown for name in near)
    names = [*dict.fromkeys(shown)]
    hint = f"perhaps you meant {' or '.join(names[:2])}" if names else "--help lists all"
    return OptionError(f"{word} is no option; {hint}")


# ---------------------------------------------------------------------------------------- help


def help_text(
    title: str, first: Mapping[str, Sequence[str]], more: Mapping[str, Sequence[str]],
    options: Mapping[str, Option],
) -> str:  # fmt: skip
    """All options under headings: of `first` one line each, then `more` whole."""
    lines = [title]
    for heading, names in first.items():
        lines += ["", f"{heading}:"]
        for name in names:
            lines += _told(options[name], choices=False)
    lines += ["", "All other options"]
    for heading, names in more.items():
        lines += ["", f"{heading}:"]
        for name in names:
            lines += _told(options[name])
    for option in (options[name] for names in first.values() for name in names):
        if option.choices:
            lines += ["", f"Values of {option.shown}:"]
            lines += textwrap.wrap(
                ", ".join(option.choices), WIDTH, initial_indent="  ", subsequent_indent="  "
            )
    return "\n".join(lines)


def _told(option: Option, choices: bool = True) -> list[str]:
    """An option's lines: how it is written, what it does, its default."""
    value = "NAME" if option.choices else _SHORT.get(option.kind)
    head = f"  {option.shown}" + (f" {value}" if value else "") + (" ..." if option.many else "")
    text = option.doc
    if choices and option.choices:
        text += f" One of {', '.join(option.choices)}."
    if option.default is not None and option.default is not False and option.default != ():
        text += f" (default: {option.default})"
    width = WIDTH - COLUMN
    described = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    if len(head) > COLUMN - 2:
        return [head, *(" " * COLUMN + line for line in described)]
    return [
        f"{before:{COLUMN}}{line}"
        for before, line in zip([head] + [""] * len(described), described, strict=False)
    ]
