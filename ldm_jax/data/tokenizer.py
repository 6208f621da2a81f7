"""Captions to token numbers: word or sub-word tokenizers trained from the captions, and CLIP's
and BERT's read from their files. Each is one `tokenizer.json`."""

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int32
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from ldm_jax import config as cfg
from ldm_jax.core.reading import parse_json, read_json, read_text
from ldm_jax.core.stores import as_path, local_folder

KNOWN_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "vocab.txt",
)  # fmt: skip
"""What a folder of a tokenizer may hold."""
_CLIP_FRAME = ("<|startoftext|>", "<|endoftext|>")
PAD, UNKNOWN = "[PAD]", "[UNK]"
_WORD_END = "</w>"
"""What byte-pair tokens at the end of a word have."""
COUNTED = 100_000
"""Captions that `caption_statistics` looks at, at most."""
_AT_ONCE = 4096

_log = logging.getLogger(__name__)


class TokenizerError(ValueError):
    """Files that are no tokenizer, or settings that make none."""


class UnknownWords(NamedTuple):
    """What of one caption a tokenizer does not know."""

    place: int
    """Which of the captions it is."""
    caption: str
    words: tuple[tuple[str, str], ...]
    """Each word once, in order, and what of it is unknown: all of it, or a character."""
    nothing_else: bool
    """Whether the caption has no other words."""


class Tokenizer:
    """Captions to rows of token numbers, padded at the end; made by the functions below.

    CLIP and BERT put each caption between a start and an end token, `start_id` and `end_id`; the
    others add none, so that these are None and an empty caption is padding only.
    """

    def __init__(self, backend: tokenizers.Tokenizer, pad_id: int):
        self._backend = backend
        self.pad_id = pad_id
        self._unknown_id = backend.token_to_id(UNKNOWN)
        self._byte_pairs = isinstance(backend.model, models.BPE)
        self.spells = not isinstance(backend.model, models.WordLevel)
        """Whether words that have no token are spelled with pieces."""
        frame = backend.encode("").ids
        self.start_id, self.end_id = frame if len(frame) == 2 else (None, None)
        # Where special tokens frame a caption, the last of them survives truncation.
        self._tail = 1 if frame else 0
        self._truncated = False

    @property
    def vocab_size(self) -> int:
        """Number of tokens, the special ones included; what an embedding needs at least."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of what decides which tokens a caption has."""
        return hashlib.sha256(f"{self.pad_id} {self._backend.to_str()}".encode()).hexdigest()

    def encode(
        self,
        captions: Sequence[str],
        max_length: int,
        skip_unknown: bool = False,
        replaced: Callable[[Sequence[int]], Sequence[int]] = list,
    ) -> Int32[np.ndarray, "n l"]:
        """Token numbers of each caption, padded to `max_length`.

        Longer captions lose their end; the first one is named in the log. Words that are not
        known become the unknown token, or are left out with `skip_unknown`. The numbers of each
        caption are `replaced` before its length is looked at.
        """
        tokens = np.full((len(captions), max_length), self.pad_id, np.int32)
        for row, caption in zip(tokens, captions, strict=True):
            found = self._backend.encode(caption)
            ids = found.ids
            if skip_unknown and (unknown := self.unknown_words(found)):
                ids = [n for n, w in zip(ids, found.word_ids, strict=True) if w not in unknown]
            ids = [*replaced(ids)]
            if len(ids) > max_length:
                self._report_truncated(caption, len(ids), max_length)
                ids = ids[: max_length - self._tail] + ids[len(ids) - self._tail :]
            row[: len(ids)] = ids
        return tokens

    def unknown(self, captions: Sequence[str]) -> list[UnknownWords]:
        """What the tokenizer does not know, of those captions that have such."""
        told = []
        for place, (caption, found) in enumerate(
            zip(captions, self.encodings(captions), strict=True)
        ):
            unknown, parts = self.unknown_words(found), {}
            for number, word, (start, end) in zip(
                found.ids, found.word_ids, found.offsets, strict=True
            ):
                if word in unknown and number == self._unknown_id:
                    first, last = found.word_to_chars(word)
                    parts.setdefault(caption[first:last], caption[start:end])
            if unknown:
                known = {word for word in found.word_ids if word is not None} - unknown
                told.append(UnknownWords(place, caption, tuple(parts.items()), not known))
        return told

    def known_words(self) -> list[str]:
        """Whole words that have a token, in alphabetical order."""
        vocabulary = self._backend.get_vocab(with_added_tokens=False)
        if self._byte_pairs:
            ends = (w.removesuffix(_WORD_END) for w in vocabulary if w.endswith(_WORD_END))
            return sorted(word for word in ends if len(word) > 1)
        special = (PAD, UNKNOWN, "[CLS]", "[SEP]", "[MASK]")
        return sorted(w for w in vocabulary if w not in special and not w.startswith("##"))

    def encodings(self, captions: Sequence[str]) -> list[tokenizers.Encoding]:
        """What the tokenizers library makes of each caption, in parallel: tokens, special ones
        included and of any length, with the word that each belongs to."""
        return self._backend.encode_batch(list(captions))

    def unknown_words(self, found: tokenizers.Encoding) -> set[int]:
        """Which words of an encoded caption are unknown, or have an unknown character."""
        if self._unknown_id is None or self._unknown_id not in found.ids:
            return set()
        pairs = zip(found.ids, found.word_ids, strict=True)
        return {word for number, word in pairs if number == self._unknown_id}

    def pieces(self, text: str) -> list[int]:
        """Token numbers of a text: no start, end or padding, and of any length."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def takes_name(self, word: str) -> bool:
        """Whether captions can name something by `word`: the tokenizer can spell it, or it is one
        word, which it may be taught (`knowing`)."""
        ids = self.pieces(word)
        return self._unknown_id not in ids or (not self.spells and len(ids) == 1)

    def knowing(self, names: Iterable[str]) -> "Tokenizer":
        """The same with a token number, behind all others, for each of the `names` that it takes
        and does not know. No text encoder knows these numbers: something stands in their place."""
        unknown = [name for name in names if self._unknown_id in self.pieces(name)]
        added = [self._normal(name) for name in unknown if self.takes_name(name)]
        if not added:
            return self
        return Tokenizer(_with_tokens(self._backend, [*dict.fromkeys(added)]), self.pad_id)

    def _normal(self, word: str) -> str:
        normalizer = self._backend.normalizer
        return word if normalizer is None else normalizer.normalize_str(word)

    def empty(self, max_length: int) -> Int32[np.ndarray, " l"]:
        """The empty condition: the tokens of the caption ''."""
        return self.encode([""], max_length)[0]

    def decode(self, tokens: Int32[np.ndarray, " l"]) -> str:
        """The text of one row of tokens, without special ones, in lower case."""
        return self._backend.decode(tokens.tolist(), skip_special_tokens=True)

    def save(self, path: str | Path) -> None:
        """Writes `tokenizer.json`: the format of the tokenizers library, padding included."""
        backend = tokenizers.Tokenizer.from_str(self._backend.to_str())
        backend.enable_padding(pad_id=self.pad_id, pad_token=backend.id_to_token(self.pad_id))
        as_path(path).write_text(backend.to_str(pretty=True), encoding="utf-8")

    def _report_truncated(self, caption: str, length: int, max_length: int) -> None:
        if not self._truncated:
            self._truncated = True
            _log.warning(
                "caption of %d tokens is cut to %d: %r (further ones are not reported)",
                length, max_length, caption,
            )  # fmt: skip


class CaptionStatistics(NamedTuple):
    """How captions fit a tokenizer and a length."""

    captions: int
    """Captions that were looked at."""
    cut: int
    """Of these, captions of too many tokens, which lose their end."""
    words: int
    """Words and punctuation marks in them."""
    unknown: int
    """Of these, words that the tokenizer does not know."""


def caption_statistics(
    tokenizer: Tokenizer, captions: Iterable[str], max_length: int
) -> CaptionStatistics:
    """How many of `captions` are cut at `max_length` tokens, and how many of their words are
    unknown. Of more than COUNTED captions, that many are looked at, evenly spread."""
    captions = list(captions)
    if len(captions) > COUNTED:
        captions = [captions[i * len(captions) // COUNTED] for i in range(COUNTED)]
    cut = words = unknown = 0
    for begin in range(0, len(captions), _AT_ONCE):
        for found in tokenizer.encodings(captions[begin : begin + _AT_ONCE]):
            cut += len(found.ids) > max_length
            words += len({word for word in found.word_ids if word is not None})
            unknown += len(tokenizer.unknown_words(found))
    return CaptionStatistics(len(captions), cut, words, unknown)


def train_tokenizer(
    captions: Iterable[str], vocab_size: int, kind: Literal["word", "bpe"] = "word"
) -> Tokenizer:
    """A tokenizer of lower-case words and punctuation, or of pieces of words (byte-pair encoding,
    Sennrich 2016, over characters), with at most `vocab_size` tokens, padding (0) and unknown (1)
    among them. The same captions give the same tokenizer.

    Words beyond `vocab_size` are unknown, the rarest first, and counted in the log.

    Raises:
        TokenizerError: no words in the captions, or `vocab_size` leaves no room for any.
    """
    special = [PAD, UNKNOWN]
    least = len(special) + (1 if kind == "word" else 2)
    if vocab_size < least:
        raise TokenizerError(f"vocab_size is {vocab_size}; it must be at least {least}")
    captions = list(captions)
    options = {"special_tokens": special, "show_progress": False}
    if kind == "word":
        backend = _lower_case(models.WordLevel(unk_token=UNKNOWN))
        # All words first, to see how many there are.
        backend.train_from_iterator(
            captions, trainers.WordLevelTrainer(vocab_size=2**31, **options)
        )
        words = backend.get_vocab_size() - len(special)
        room = vocab_size - len(special)
        if words > room:
            _log.warning(
                "the captions have %d words; vocab_size %d has room for %d, the rarest %d "
                "become unknown", words, vocab_size, room, words - room,
            )  # fmt: skip
            trainer = trainers.WordLevelTrainer(vocab_size=vocab_size, **options)
            backend.train_from_iterator(captions, trainer)
    else:
        backend = _train_byte_pairs(captions, vocab_size)
    if backend.get_vocab_size() == len(special):
        raise TokenizerError(
            f"the {len(captions)} captions have no words, so no vocabulary can be made from them"
        )
    return Tokenizer(backend, pad_id=backend.token_to_id(PAD))


def _train_byte_pairs(captions: Sequence[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Byte-pair encoding in which every character of the captions may stand anywhere in a word.

    A character at a word's end is a token of its own. The library would make it only where it was
    seen there, so that "sun" of captions without a word that ends in n could not be spelled, and
    in an order that is another in each process; as special tokens they are all there, in order.
    """
    special = [PAD, UNKNOWN]
    alphabet = _alphabet(captions)[: (vocab_size - len(special)) // 2]
    backend = _lower_case(models.BPE(unk_token=UNKNOWN, end_of_word_suffix=_WORD_END))
    backend.decoder = decoders.BPEDecoder(suffix=_WORD_END)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, end_of_word_suffix=_WORD_END, initial_alphabet=alphabet,
        limit_alphabet=len(alphabet), show_progress=False,
        special_tokens=[*special, *(char + _WORD_END for char in alphabet)],
    )  # fmt: skip
    backend.train_from_iterator(captions, trainer)
    content = json.loads(backend.to_str())
    # In a prompt they are no more than others.
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] in special]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def _alphabet(captions: Iterable[str]) -> list[str]:
    """The characters of captions, the most frequent first."""
    normalizer, counts = _lower_case(models.BPE()).normalizer, Counter()
    for caption in captions:
        counts.update(normalizer.normalize_str(caption))
    found = [char for char in counts if not char.isspace()]
    return sorted(found, key=lambda char: (-counts[char], char))


def _with_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str]) -> tokenizers.Tokenizer:
    """The same with more tokens, which nothing is merged to."""
    content = json.loads(backend.to_str())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {token: len(vocabulary) + i for i, token in enumerate(tokens)}
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def read_tokenizer(path: str | Path, text: cfg.TextConditioner) -> Tokenizer:
    """The tokenizer that `text` asks for, in a folder with its files or in one `tokenizer.json`.

    Raises:
        TokenizerError, FileFormatError: there is none, it is of another kind, or it has more
            tokens than the text encoder knows.
    """
    load = {"clip": load_clip_tokenizer, "bert": load_bert_tokenizer}
    tokenizer = load.get(text.tokenizer, load_tokenizer)(path)
    if tokenizer.vocab_size > text.encoder.vocab_size:
        raise TokenizerError(
            f"the tokenizer {path} has {tokenizer.vocab_size} tokens, but the model's text "
            f"encoder knows {text.encoder.vocab_size}; it is the tokenizer of another model"
        )
    return tokenizer


def load_tokenizer(path: str | Path) -> Tokenizer:
    """What `Tokenizer.save` wrote: the file, or the folder with its `tokenizer.json`.

    Raises:
        TokenizerError: no such file, not a tokenizer, or one without padding.
    """
    path = as_path(path) / "tokenizer.json" if as_path(path).is_dir() else as_path(path)
    try:
        text = read_text(path)
        found = parse_json(path, "it", text)
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"cannot read the tokenizer {path}: {error}") from error
    padding = found.get("padding")
    pad_id = padding.get("pad_id") if isinstance(padding, dict) else None
    if type(pad_id) is not int or not 0 <= pad_id < backend.get_vocab_size():
        raise TokenizerError(f"{path} has no padding settings; it was not written by ldm_jax")
    return _bare(backend, pad_id)


def load_clip_tokenizer(folder: str | Path) -> Tokenizer:
    """CLIP's tokenizer from the files of a local folder (`vocab.json` and `merges.txt`, or
    `tokenizer.json`), padding as they say: with the end token for SD 1, with '!' for SD 2. Use it
    with 77 tokens. Nothing is downloaded.

    Raises:
        TokenizerError: the folder or its files are missing, or it is not CLIP's.
    """
    folder = local_folder(as_path(folder))
    if not (folder / "tokenizer.json").is_file():
        absent = [n for n in ("vocab.json", "merges.txt") if not (folder / n).is_file()]
        if absent:
            raise TokenizerError(
                f"{folder} has no {' and no '.join(absent)}; it must be a folder with CLIP's "
                "tokenizer files"
            )
    # Its advice that PyTorch is missing is none to a user of this program.
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import CLIPTokenizerFast  # slow to import

    for name in KNOWN_FILES:
        if (folder / name).exists():
            _check_file(folder / name)
    try:
        found = CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # of whatever kind the library or its parts raise
        raise TokenizerError(f"cannot read CLIP's tokenizer in {folder}: {error}") from error
    absent = [t for t in _CLIP_FRAME if found.backend_tokenizer.token_to_id(t) is None]
    if absent or found.backend_tokenizer.token_to_id("[CLS]") is not None:
        raise TokenizerError(
            f"the tokenizer in {folder} is not CLIP's, which has the tokens "
            f"{' and '.join(_CLIP_FRAME)} and no [CLS]"
        )
    # transformers patches `decode` on its object; a decoder of its own survives `save`.
    backend = tokenizers.Tokenizer.from_str(found.backend_tokenizer.to_str())
    backend.decoder = decoders.Sequence(
        [decoders.ByteLevel(), decoders.Replace("</w>", " "), decoders.Strip(" ", 0, 1)]
    )
    return _bare(backend, found.pad_token_id)


def load_bert_tokenizer(folder: str | Path) -> Tokenizer:
    """BERT's tokenizer from the files of a local folder: `tokenizer.json`, or `vocab.txt` with one
    token a line, in lower case unless `tokenizer_config.json` says otherwise. Captions become
    `[CLS] … [SEP]`, padded with `[PAD]`; use it with 77 tokens. Nothing is downloaded.

    Raises:
        TokenizerError: the folder or its files are missing, or a special token is.
    """
    folder = local_folder(as_path(folder))
    try:
        for name in KNOWN_FILES:
            if (folder / name).exists():
                _check_file(folder / name)
        if (folder / "tokenizer.json").is_file():
            backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        elif (folder / "vocab.txt").is_file():
            backend = _bert(folder)
        else:
            raise TokenizerError(
                f"{folder} has no vocab.txt and no tokenizer.json; it must be a folder with BERT's "
                "tokenizer files"
            )
    except TokenizerError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"cannot read BERT's tokenizer in {folder}: {error}") from error
    frame = tuple(backend.token_to_id(token) for token in ("[CLS]", "[SEP]"))
    pad_id = backend.token_to_id(PAD)
    made = _bare(backend, 0 if pad_id is None else pad_id)
    if None in (pad_id, *frame) or (made.start_id, made.end_id) != frame:
        raise TokenizerError(
            f"the tokenizer in {folder} does not put captions between [CLS] and [SEP] or has no "
            "[PAD]; it is not BERT's"
        )
    return made


def _check_file(path: Path) -> None:
    """Raises FileFormatError unless a tokenizer's file is one, and JSON where it is called so."""
    if path.suffix == ".json":
        read_json(path)
    else:
        read_text(path)


def _bert(folder: Path) -> tokenizers.Tokenizer:
    settings_file, settings = folder / "tokenizer_config.json", {}
    if settings_file.is_file():
        settings = read_json(settings_file)
    made = tokenizers.BertWordPieceTokenizer(
        str(folder / "vocab.txt"),
        lowercase=settings.get("do_lower_case", True),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
    )
    return tokenizers.Tokenizer.from_str(made.to_str())


def _bare(backend: tokenizers.Tokenizer, pad_id: int) -> Tokenizer:
    # Lengths are the business of `encode`.
    backend.no_padding()
    backend.no_truncation()
    return Tokenizer(backend, pad_id)


def _lower_case(model: models.Model) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return backend
