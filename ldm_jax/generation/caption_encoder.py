"""A frozen text encoder that reads captions once, for training to take what it made of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Int32

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.loading import read_text_encoder
from ldm_jax.core.stores import as_path
from ldm_jax.data.encoded_latents import EncodedText, text_encoder_hash
from ldm_jax.data.tokenizer import Tokenizer, read_tokenizer
from ldm_jax.models.build import build_conditioner


@dataclass(frozen=True)
class CaptionEncoder:
    """A text encoder with its parameters and tokenizer."""

    text: cfg.TextConditioner
    params: Any
    tokenizer: Tokenizer

    @classmethod
    def read(cls, path: str) -> "CaptionEncoder":
        """That of any model.

        Raises:
            ConfigError, ConvertError, FileFormatError, TokenizerError, OSError: there is none.
        """
        text, params, files = read_text_encoder(path, "--text_encoder")
        if files is None:
            raise cfg.ConfigError(
                f"--text_encoder={path} has no tokenizer; write a copy that has it with python -m "
                f"ldm_jax.convert {path} TARGET --tokenizer=FOLDER, and name that"
            )
        return cls(text, imported_model.materialize(params), read_tokenizer(as_path(files), text))

    @property
    def index(self) -> EncodedText:
        """How what it makes of a caption is told of."""
        encoder = self.text.encoder
        return EncodedText(
            encoder=text_encoder_hash(self.text, self.params, self.tokenizer),
            shape=(encoder.max_length, encoder.width),
            pooled=self.text.slots(0).pooled,
        )

    def tokens(self, captions: Sequence[str]) -> Int32[np.ndarray, "n l"]:
        """Token numbers of captions."""
        return self.tokenizer.encode(captions, self.text.encoder.max_length)

    def encoded(
        self, dtype: DTypeLike, compute: str, params: Any, tokens: Int[Array, "n l"]
    ) -> dict[str, Float[Array, "n ..."]]:
        """What is kept of captions, in `dtype`, by name; computed in `compute`."""
        return build_conditioner(self.text, compute).encoded(params, tokens, dtype)
