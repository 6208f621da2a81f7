"""Words of a prompt that stand for vectors of their own (textual inversion): found by the tokens of
their names, as the web UI does, and given token numbers behind those of the text encoder."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ldm_jax.data.tokenizer import Tokenizer


class EmbeddingWord(NamedTuple):
    """One word."""

    name: str
    rows: tuple[int, ...]
    """The token numbers that stand for it."""


class Unit(NamedTuple):
    """Token numbers that stay together, and the word that they are, if they are one."""

    ids: tuple[int, ...]
    word: str | None = None


class EmbeddingWords:
    """All words that prompts may name."""

    def __init__(self, tokenizer: Tokenizer, words: Iterable[EmbeddingWord] = ()) -> None:
        """Of `words`; where two have the same tokens, the first is meant."""
        self._by_first: dict[int, list[tuple[tuple[int, ...], EmbeddingWord]]] = {}
        for word in words:
            name = tuple(tokenizer.pieces(word.name))
            if name:
                self._by_first.setdefault(name[0], []).append((name, word))
        for found in self._by_first.values():
            found.sort(key=lambda pair: -len(pair[0]))

    def replaced(self, ids: Sequence[int]) -> list[int]:
        """The tokens of a text, with rows in the place of words."""
        return [number for unit in self.units(ids) for number in unit.ids]

    def units(self, ids: Sequence[int]) -> list[Unit]:
        """The tokens of a text, those of each word's name replaced by its rows. Of words that begin
        at the same place, the longest is meant."""
        found, place = [], 0
        while place < len(ids):
            for name, word in self._by_first.get(ids[place], ()):
                if tuple(ids[place : place + len(name)]) == name:
                    found.append(Unit(word.rows, word.name))
                    place += len(name)
                    break
            else:
                found.append(Unit((ids[place],)))
                place += 1
        return found
