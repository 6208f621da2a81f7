"""Command-line words that name settings of a dataclass: each is refused here, in one sentence,
where there is no such setting or its value cannot be read or is out of range."""

import difflib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from ldm_jax.config.checks import ConfigError, allowed, matches, told
from ldm_jax.core.stores import as_path


def check_words(
    words: Sequence[str], hints: Mapping[str, Any], others: Collection[str] = (),
    positional: bool = False,
) -> list[str]:  # fmt: skip
    """`words` as tyro takes them, each checked by the annotation of its setting in `hints`.

    `--name=VALUE` or `--name VALUE`; a switch is `--name`, `--no-name` or `--name=False`; a tuple
    is `--name A B`, which goes on where the option is there again, or `--name=None` if it is to be
    empty. `_` and `-` are the same.

    Args:
        words: what stands on the command line.
        hints: the annotation of each setting, by its path.
        others: further options, which were taken before: what a wrong name may have been meant as.
        positional: whether words may stand alone; they are left as they are.

    Raises:
        ConfigError: names the option as it was typed, what was wrong, and what may be.
    """
    found: list[str] = []
    lists: dict[str, list[str]] = {}
    rest = [*words]
    while rest:
        word = rest.pop(0)
        option, sign, text = word.partition("=")
        if not word.startswith("--"):
            if not positional:
                raise _alone(word, found[-1] if found else "")
            found.append(word)
            continue
        path = path_of(option)
        hint = hints.get(path, hints.get(positive(path)))
        if hint is None:
            raise unknown(option, [*hints, *others])
        if hint is bool:
            found.append(_switch(option, text if sign else None))
            continue
        many, texts = _is_tuple(hint), [text] if sign else []
        while not sign and rest and not rest[0].startswith("--") and (many or not texts):
            texts.append(rest.pop(0))
        listed = many and matches((), hint)
        if listed and texts == ["None"]:
            lists[path] = []
            continue
        _check(option, texts, hint)
        if listed:
            lists[path] = [*lists.get(path, ()), *texts]
        else:
            found += [word] if sign else [option, *texts]
    for path, texts in lists.items():
        found += [f"--{path}={texts[0]}"] if len(texts) == 1 else [f"--{path}", *texts]
    return found


def path_of(option: str) -> str:
    """The setting that `--a.b-c` names: `a.b_c`."""
    return option.removeprefix("--").replace("-", "_")


def positive(path: str) -> str:
    """The setting that a switch `a.no_b` turns off: `a.b`."""
    above, dot, name = path.rpartition(".")
    return f"{above}{dot}{name.removeprefix('no_')}"


def value(text: str, hint: Any) -> Any:
    """The value that a word of the command line means for a setting of that type; the word itself
    where it is none."""
    candidates: list[Any] = [{"None": None, "True": True, "False": False}.get(text, text)]
    for number in (float, int):
        with suppress(ValueError):
            candidates.insert(0, number(text))
    candidates += [text, *([as_path(text)] if matches(Path(), hint) else ())]
    return next((one for one in candidates if matches(one, hint)), text)


def unknown(
    option: str, names: Collection[str], what: str = "option", where: str = "--help lists all"
) -> ConfigError:
    """The error for an option that is none of `names`."""
    close = difflib.get_close_matches(path_of(option), names, n=3)
    hint = f"perhaps you meant {' or '.join(f'--{name}' for name in close)}"
    return ConfigError(f"{option} is no {what}; {hint if close else where}")


def _alone(word: str, before: str) -> ConfigError:
    if word.lower() in ("true", "false") and before:
        return ConfigError(f"{word!r} belongs to no option; write {before}={word.capitalize()}")
    return ConfigError(
        f"{word!r} belongs to no option; write --name=VALUE, and put a value of several words in "
        "quotes"
    )


def _switch(option: str, text: str | None) -> str:
    """`--a.b=True` and `--a.b=False` as tyro has them: `--a.b` and `--a.no-b`."""
    if text is not None and text.lower() not in ("true", "false"):
        raise ConfigError(f"{option} is {text!r}; it is a switch: {option}, or {option}=False")
    above, dot, name = path_of(option).rpartition(".")
    on = (text is None or text.lower() == "true") != name.startswith("no_")
    return f"--{above}{dot}{'' if on else 'no-'}{name.removeprefix('no_')}"


def _check(option: str, texts: Sequence[str], hint: Any) -> None:
    """Raises ConfigError unless `texts`, which stand behind `option`, are a value."""
    single = [one for one in _alternatives(hint) if not _is_tuple(one)]
    tuples = [one for one in _alternatives(hint) if _is_tuple(one)]
    if not texts and matches((), hint):
        each = allowed(typing.get_args(tuples[0])[0])
        raise ConfigError(
            f"{option} has no value; write one or more behind it, each {each}, or {option}=None "
            "for none"
        )
    if not texts:
        raise ConfigError(f"{option} has no value; it must be {allowed(hint)}")
    if len(texts) == 1 and any(matches(value(texts[0], one), one) for one in single):
        return
    if any(matches(_entries(texts, one), one) for one in tuples):
        return
    for one in tuples:
        entry = typing.get_args(one)[0]
        if _is_tuple(entry):
            continue
        wrong = [text for text in texts if not matches(value(text, entry), entry)]
        if wrong and not single:
            raise ConfigError(told(option, value(wrong[0], int | float), entry))
    given = tuple(value(text, int | float) for text in texts)
    raise ConfigError(told(option, given if len(given) > 1 else given[0], hint))


def _entries(texts: Sequence[str], hint: Any) -> tuple[Any, ...]:
    """The tuple that `texts` are; entries that are tuples stand one after the other."""
    kinds = typing.get_args(hint)
    if kinds[-1] is Ellipsis and _is_tuple(kinds[0]):
        count = len(typing.get_args(kinds[0]))
        return tuple(_entries(texts[i : i + count], kinds[0]) for i in range(0, len(texts), count))
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(texts)
    elif len(kinds) != len(texts):
        return tuple(texts)
    return tuple(value(text, kind) for text, kind in zip(texts, kinds, strict=True))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """What a setting may be, one after the other; ranges stay with their types."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return tuple(one for arg in args for one in _alternatives(arg))
    if origin is Annotated and typing.get_origin(args[0]) in (typing.Union, types.UnionType):
        return tuple(Annotated[(one, *args[1:])] for one in _alternatives(args[0]))
    return (hint,)


def _is_tuple(hint: Any) -> bool:
    return any(typing.get_origin(one) is tuple for one in _alternatives(hint))
