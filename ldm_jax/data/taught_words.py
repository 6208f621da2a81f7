"""New words of a text encoder in captions, while their vectors are learnt (Gal 2022)."""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Int32

from ldm_jax import config as cfg
from ldm_jax.data.embedding_words import EmbeddingWord, EmbeddingWords
from ldm_jax.data.random_stream import RandomStream
from ldm_jax.data.tokenizer import Tokenizer

_DETERMINERS = ("a", "the", "my")
_OF_OBJECTS = (
    "a photo of {}", "a picture of {}", "a close-up of {}", "a rendering of {}",
    "a cropped photo of {}", "a bright photo of {}", "a dark photo of {}", "a clean photo of {}",
    "a low quality photo of {}",
)  # fmt: skip
_OF_STYLES = (
    "a painting", "a drawing", "a picture", "a rendering", "a sketch", "a close-up painting",
    "a bright painting", "a dark painting", "a detailed picture",
)  # fmt: skip
TEMPLATES: dict[str, tuple[str, ...]] = {
    "object": tuple(t.format(f"{one} {{}}") for t in _OF_OBJECTS for one in _DETERMINERS),
    "style": tuple(f"{one} in the style of {{}}" for one in _OF_STYLES),
}
"""Captions around a word, where pictures have none that name it."""


class TaughtWords:
    """Makes the tokens of captions, in which new words stand for rows behind the table's own."""

    def __init__(
        self, config: cfg.TextualInversion, tokenizer: Tokenizer, text: cfg.TextConditioner
    ) -> None:
        """Raises ConfigError for words that the tokenizer could not tell from others."""
        for word in config.words:
            if not tokenizer.takes_name(word):
                raise cfg.ConfigError(
                    f"adapter.words has {word!r}, which is no single word to the model's "
                    "tokenizer, and of which it does not know all; use a word of letters alone"
                )
        self.tokenizer = tokenizer.knowing(config.words)
        """That of the model, which knows the new words, too."""
        self._config, self._length = config, text.encoder.max_length
        self._first = rows = text.encoder.vocab_size
        count = config.vectors
        # The rows lie in the order of the names.
        self._words = EmbeddingWords(
            self.tokenizer,
            (
                EmbeddingWord(word, tuple(range(rows + i * count, rows + (i + 1) * count)))
                for i, word in enumerate(sorted(config.words))
            ),
        )

    def caption(self, caption: str, stream: RandomStream) -> str:
        """What an example is trained with: its own caption, or a template and a word that are drawn
        for it."""
        templates = TEMPLATES.get(self._config.captions)
        if templates is None:
            return caption
        template = templates[stream.below(len(templates))]
        return template.format(self._config.words[stream.below(len(self._config.words))])

    def check_captions(self, captions: Iterable[str]) -> None:
        """Raises ConfigError where own captions are asked for and none has a word in it, so that
        nothing would be learnt; or templates, of whose words the model knows none."""
        templates = TEMPLATES.get(self._config.captions)
        if templates is not None:
            self._check_templates(templates)
        elif not any(map(self._has_word, captions)):
            raise cfg.ConfigError(
                f"adapter.captions is 'own', but no caption has {' or '.join(self._config.words)} "
                "in it; write the words into captions, or use templates: 'object' or 'style'"
            )

    def _check_templates(self, templates: Sequence[str]) -> None:
        unknown = self.tokenizer.unknown([one.format(self._config.words[0]) for one in templates])
        words = dict.fromkeys(word for one in unknown for word, _ in one.words)
        if words:
            some = ", ".join(map(repr, [*words][:5])) + (", …" if len(words) > 5 else "")
            raise cfg.ConfigError(
                f"adapter.captions is {self._config.captions!r}, templates with words that this "
                f"model does not know: {some}; use captions of its own words that name "
                f"{' or '.join(self._config.words)}, with --adapter.captions=own"
            )

    def _has_word(self, caption: str) -> bool:
        return bool((self.tokens(caption) >= self._first).any())

    def tokens(self, caption: str) -> Int32[np.ndarray, " l"]:
        """Token numbers of a caption, framed and padded; what does not fit is left out."""
        return self.tokenizer.encode([caption], self._length, replaced=self._words.replaced)[0]


def initial_tokens(config: cfg.TextualInversion, tokenizer: Tokenizer) -> Sequence[int]:
    """The tokens with whose vectors new ones begin. Raises ConfigError where there are none."""
    tokens = tokenizer.pieces(config.init_text)
    if not tokens:
        raise cfg.ConfigError(
            f"adapter.init_text is {config.init_text!r}, which has no tokens; use words that are "
            "near to what is taught, such as 'toy'"
        )
    return tokens
