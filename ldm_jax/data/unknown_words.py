"""Words of prompts that a tokenizer does not know: found, told with words that are near, refused or
left out."""

import difflib
import logging
from collections.abc import Sequence

from ldm_jax.data.tokenizer import Tokenizer, UnknownWords

TOLD, WORDS_TOLD = 5, 8
"""Prompts that an error lists, and words of each."""
_LIST_BELOW = 64
"""Up to this many known words are all listed."""
_SHOWN = 100

_log = logging.getLogger(__name__)


class UnknownWordsError(ValueError):
    """Prompts with words that the tokenizer, hence the model, has never seen."""

    def __init__(
        self, found: Sequence[UnknownWords], total: int, tokenizer: Tokenizer, skip: bool
    ) -> None:
        """`found` by `tokenizer` in `total` prompts; `skip` says that the words were to be left
        out, and that nothing else is in these prompts."""
        super().__init__(found, total, tokenizer, skip)
        self.names: dict[int, str] = {}
        """Where prompts come from, by their place among all: "FILE, line 3"."""

    def __str__(self) -> str:
        found, total, tokenizer, skip = self.args
        known = tokenizer.known_words()
        what = "no word" if skip else "words"
        advice = "choose other words"
        if not skip:
            advice += ", or leave the unknown ones out with --unknown_words=skip"
        if len(known) <= _LIST_BELOW and not tokenizer.spells:
            advice += f"; known are {', '.join(known)}"
        if len(found) == 1:
            (one,) = found
            told = told_words(one.words, known)
            if skip:
                return f"the model knows no word of {self._where(one, total)}: {told}; {advice}"
            return f"the model does not know {told} in {self._where(one, total)}; {advice}"
        lines = [
            f"  {self._where(one, total)}: {told_words(one.words, known)}" for one in found[:TOLD]
        ]
        if len(found) > TOLD:
            lines.append(f"  and {len(found) - TOLD} more prompts")
        verb = "knows" if skip else "does not know"
        head = f"the model {verb} {what} of {len(found)} of {total} prompts; {advice}"
        return "\n".join([head, *lines])

    def _where(self, one: UnknownWords, total: int) -> str:
        text = repr(one.caption if len(one.caption) <= _SHOWN else f"{one.caption[:_SHOWN]}...")
        usual = f"prompt {one.place + 1} of {total}" if total > 1 else None
        if one.place == NEGATIVE:
            usual = "the negative prompt"
        name = self.names.get(one.place, usual)
        return f"the prompt {text}" if name is None else f"{name}, {text}"


NEGATIVE = -1
"""The place of the negative prompt."""


def check_words(
    tokenizer: Tokenizer, prompts: Sequence[str], negative: str, skip: bool = False
) -> None:
    """Refuses prompts with unknown words, all of them in one error; or with `skip`, which leaves
    such words out, names them in the log and refuses prompts that have no others.

    Raises:
        UnknownWordsError: which prompts, which words, and known ones that are near.
    """
    found = tokenizer.unknown(prompts)
    found += [one._replace(place=NEGATIVE) for one in tokenizer.unknown([negative])]
    refused = [one for one in found if one.nothing_else] if skip else found
    if refused:
        raise UnknownWordsError(refused, len(prompts), tokenizer, skip)
    if found:
        words = dict.fromkeys(word for one in found for word, _ in one.words)
        _log.warning(
            "left out of %d of the prompts, because the model does not know them: %s",
            len(found), _some([repr(word) for word in words]),
        )  # fmt: skip


def told_words(words: Sequence[tuple[str, str]], known: Sequence[str]) -> str:
    """Words, each with what of it is unknown where that is not the whole, and with near ones."""
    told = []
    for word, part in words[:WORDS_TOLD]:
        near = difflib.get_close_matches(word.lower(), known, n=2, cutoff=0.65)
        hint = f" (perhaps {' or '.join(map(repr, near))})" if near else ""
        told.append(f"{word!r}{hint}" if part == word else f"{part!r} in {word!r}{hint}")
    return _some(told, len(words))


def _some(told: Sequence[str], total: int | None = None) -> str:
    total = total or len(told)
    more = f" and {total - WORDS_TOLD} more" if total > WORDS_TOLD else ""
    return ", ".join(told[:WORDS_TOLD]) + more
