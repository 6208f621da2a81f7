"""The embeddings that a loaded model knows: read once, their vectors beside its text encoder's."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped

from ldm_jax import config as cfg
from ldm_jax.adapters.embedding import Embedding
from ldm_jax.convert.embeddings.embedding_files import check_width, read_embeddings
from ldm_jax.convert.embeddings.embedding_folder import EmbeddingFolder, read_embedding_folder
from ldm_jax.core.stores import as_path
from ldm_jax.data.embedding_words import EmbeddingWord, EmbeddingWords
from ldm_jax.data.tokenizer import Tokenizer


class EmbeddingShelf:
    """Of one model; empty where none is chosen."""

    def __init__(
        self,
        config: cfg.Model,
        tokenizer: Tokenizer | None,
        choice: cfg.ModelChoice,
        bundled: Sequence[tuple[str, Embedding]] = (),
    ) -> None:
        """Of those that `choice` names, those that its adapters bring along, each with its file,
        and those of its folder; where two have a word in common, the earlier is meant.

        Raises:
            ConfigError: a model without a text encoder, two embeddings of one word, or one whose
                word prompts for this model cannot have.
            ConvertError, FileFormatError: a file, not of the folder, that cannot be used.
        """
        self.notes: tuple[str, ...] = ()
        self.words: EmbeddingWords | None = None
        self.tokenizer = tokenizer
        """That of the model, which knows the words, too."""
        self.skipped: tuple[Embedding, ...] = ()
        """Those of the folder that are for text encoders of another width."""
        self._all: list[Embedding] = []
        self._files: list[Path | None] = []
        asked = choice.embeddings or choice.embeddings_dir is not None
        text = cfg.find(config.conditioners, cfg.TextConditioner)
        if text is None:
            if asked:
                raise cfg.ConfigError(
                    "embeddings: this model takes no prompts, which would name them; leave them out"
                )
            return
        width, self._first = text.encoder.width, text.encoder.vocab_size
        named = [(path, one) for path in choice.embeddings for one in read_embeddings(path)]
        _check_twice(named)
        for where, one in (*named, *bundled):
            check_width(where, one, width)
            _check_names(where, one, tokenizer)
        listed: tuple[tuple[Path, Embedding], ...] = ()
        if choice.embeddings_dir is not None:
            folder = read_embedding_folder(choice.embeddings_dir, width)
            self.notes, listed = _named_by(tokenizer, folder)
            self.skipped = tuple(one for _, one in folder.wide)
        self._named = [one for _, one in named]
        self._all = [*self._named, *(one for _, one in bundled), *(one for _, one in listed)]
        self._files = [as_path(path) for path, _ in named] + [None] * len(bundled)
        self._files += [path for path, _ in listed]
        if self._all:
            self.tokenizer = tokenizer.knowing(name for one in self._all for name in one.words)
            self.words = EmbeddingWords(self.tokenizer, self._numbered())

    def _numbered(self) -> Iterator[EmbeddingWord]:
        for one, first in zip(self._all, self._starts(), strict=True):
            for word in filter(self.tokenizer.takes_name, one.words):
                yield EmbeddingWord(word, tuple(range(first, first + len(one.vectors))))

    def _starts(self) -> list[int]:
        """The token number of each embedding's first vector."""
        counts = [len(one.vectors) for one in self._all]
        return [self._first + sum(counts[:place]) for place in range(len(counts))]

    @property
    def rows(self) -> Shaped[np.ndarray, "n d"] | None:
        """All vectors, in the order of their token numbers; None if there are none."""
        if not self._all:
            return None
        return np.concatenate([np.asarray(one.vectors, np.float32) for one in self._all])

    @property
    def all(self) -> tuple[Embedding, ...]:
        """Those that prompts may name."""
        return tuple(self._all)

    def used(self, tokens: Iterable[Int[np.ndarray, "..."]]) -> dict[str, Path | None]:
        """The embeddings that are named by a prompt of these tokens: their words, each with the
        file; None is one that an adapter brought along."""
        used = {int(number) for some in tokens for number in np.unique(some)}
        return {
            one.name: file
            for one, first, file in zip(self._all, self._starts(), self._files, strict=True)
            if first in used
        }

    def unused(self, tokens: Iterable[Int[np.ndarray, "..."]]) -> list[str]:
        """The words of the embeddings that were named for the model and that no prompt has."""
        used = {int(number) for some in tokens for number in np.unique(some)}
        pairs = zip(self._all, self._starts(), strict=True)
        return [one.name for one, first in pairs if one in self._named and first not in used]


def _check_names(where: str | Path, one: Embedding, tokenizer: Tokenizer) -> None:
    if not any(map(tokenizer.takes_name, one.words)):
        raise cfg.ConfigError(
            f"{where}: the model's tokenizer does not know {' or '.join(map(repr, one.words))}, "
            "which is no single word to it; call the embedding by one word of letters: rename the "
            "file, or write another with python -m ldm_jax.convert.embeddings"
        )


def _named_by(
    tokenizer: Tokenizer, folder: EmbeddingFolder
) -> tuple[tuple[str, ...], tuple[tuple[Path, Embedding], ...]]:
    """Why some of a folder's embeddings cannot be used, and those that prompts can name."""
    notes, found = [*folder.notes], []
    for path, one in folder.found:
        try:
            _check_names(path, one, tokenizer)
            found.append((path, one))
        except cfg.ConfigError as error:
            notes.append(f"left out: {error}")
    return tuple(notes), tuple(found)


def _check_twice(named: Sequence[tuple[str, Embedding]]) -> None:
    of: dict[str, str] = {}
    for where, one in named:
        for word in one.words:
            if of.setdefault(word, where) != where:
                raise cfg.ConfigError(
                    f"embeddings: {of[word]} and {where} have the same word {word!r}; leave one "
                    "out, or rename it"
                )
