"""What users ask for (captions, classes) as what a model's conditioner takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64

from ldm_jax import config as cfg
from ldm_jax.data import prompts
from ldm_jax.data.tokenizer import (
    Tokenizer,
    TokenizerError,
    load_bert_tokenizer,
    load_clip_tokenizer,
    load_tokenizer,
)

Wish = str | int | None
"""A caption, a class, or nothing."""

OPTIONS = {str: "captions (--prompt)", int: "classes (--classes)", type(None): "nothing"}


@dataclass(frozen=True)
class Inputs:
    """The conditioner's inputs of those examples that one program can draw together."""

    rows: Int64[np.ndarray, "n"]
    """Which of the wishes they are."""
    inputs: Int32[np.ndarray, "n ..."]
    weights: Float32[np.ndarray, "n k l"] | None
    empty: Int32[np.ndarray, "1 ..."]
    empty_weights: Float32[np.ndarray, "1 k l"] | None

    def of(self, rows: Int64[np.ndarray, "b"]) -> tuple[np.ndarray, np.ndarray | None]:
        """Inputs and weights of these wishes, which must be among `rows`."""
        places = np.searchsorted(self.rows, rows)
        return self.inputs[places], None if self.weights is None else self.weights[places]

    def negative(self, size: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The unconditional inputs and weights, `size` times."""
        weights = self.empty_weights
        return (
            np.repeat(self.empty, size, axis=0),
            None if weights is None else np.repeat(weights, size, axis=0),
        )


def open_tokenizer(
    condition: cfg.Condition, path: Path | None, model: str | Path
) -> Tokenizer | None:
    """The tokenizer that a text-conditional model needs; None for others.

    Raises:
        TokenizerError: it is missing or damaged.
    """
    if not isinstance(condition, cfg.TextCondition):
        return None
    if path is None:
        raise TokenizerError(
            f"{model} has no tokenizer; name a folder with its files: --tokenizer=FOLDER "
            "(vocab.json and merges.txt for CLIP, vocab.txt for BERT)"
        )
    match condition.tokenizer:
        case "clip":
            tokenizer = load_clip_tokenizer(path)
        case "bert":
            tokenizer = load_bert_tokenizer(path)
        case _:
            tokenizer = load_tokenizer(path)
    if tokenizer.vocab_size > condition.encoder.vocab_size:
        raise TokenizerError(
            f"the tokenizer {path} has {tokenizer.vocab_size} tokens, but the text encoder of "
            f"{model} knows {condition.encoder.vocab_size}; it belongs to another model"
        )
    return tokenizer


def encode_conditions(
    condition: cfg.Condition,
    tokenizer: Tokenizer | None,
    wishes: Sequence[Wish],
    negative: Wish,
    emphasis: bool = True,
) -> list[Inputs]:
    """The inputs of all wishes, grouped by shape, beside the unconditional inputs of that shape.

    A wish's group does not depend on the others': prompts for CLIP have as many chunks as they or
    the negative prompt need.

    Raises:
        ValueError: a wish of another kind than the model is conditioned on, a class that does
            not exist, a word that a tokenizer does not know, or syntax that has no meaning.
    """
    _check_kinds(condition, [*wishes, negative])
    match condition:
        case cfg.TextCondition(encoder=cfg.CLIPText(max_length=length)):
            return _chunked(tokenizer, wishes, negative, length, emphasis)
        case cfg.TextCondition(encoder=encoder):

            def encode(some: Sequence[Wish]) -> np.ndarray:
                captions = ["" if c is None else str(c) for c in some]
                return tokenizer.encode(captions, encoder.max_length, strict=True)

        case cfg.ClassCondition(num_classes=count):

            def encode(some: Sequence[Wish]) -> np.ndarray:
                return np.asarray([_label(c, count) for c in some], np.int32)

        case cfg.Unconditional():

            def encode(some: Sequence[Wish]) -> np.ndarray:
                return np.zeros(len(some), np.int32)

    return [Inputs(np.arange(len(wishes)), encode(wishes), None, encode([negative]), None)]


def _chunked(
    tokenizer: Tokenizer, wishes: Sequence[Wish], negative: Wish, length: int, emphasis: bool
) -> list[Inputs]:
    """One group for each number of chunks, wishes in order."""
    groups: dict[int, list[tuple[int, prompts.Tokens]]] = {}
    for row, wish in enumerate(wishes):
        pair = prompts.encode(tokenizer, [wish or "", negative or ""], length, emphasis)
        groups.setdefault(pair.ids.shape[1], []).append((row, pair))
    return [
        Inputs(
            rows=np.asarray([row for row, _ in group]),
            inputs=np.stack([pair.ids[0] for _, pair in group]),
            weights=np.stack([pair.weights[0] for _, pair in group]),
            empty=group[0][1].ids[1:],
            empty_weights=group[0][1].weights[1:],
        )
        for group in groups.values()
    ]


def _check_kinds(condition: cfg.Condition, wishes: Sequence[Wish]) -> None:
    wanted = {cfg.TextCondition: str, cfg.ClassCondition: int}.get(type(condition), type(None))
    for wish in wishes:
        if wish is not None and not isinstance(wish, wanted):
            raise ValueError(
                f"this model is conditioned on {OPTIONS[wanted]}, not on "
                f"{OPTIONS[type(wish)]}: {wish!r}"
            )


def _label(wish: Wish, count: int) -> int:
    if wish is None:
        return count
    if not 0 <= wish < count:
        raise ValueError(f"class {wish} does not exist; this model has 0 to {count - 1}")
    return int(wish)
