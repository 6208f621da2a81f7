"""What users ask for (captions, classes, a picture) as what a model takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from ldm_jax import config as cfg
from ldm_jax.data import prompts
from ldm_jax.data.embedding_words import EmbeddingWords
from ldm_jax.data.tokenizer import Tokenizer, TokenizerError, read_tokenizer
from ldm_jax.data.unknown_words import check_words
from ldm_jax.generation.adapter_shelf import Worn
from ldm_jax.generation.control_hints import Hints

Condition = str | int | None
"""A caption, a class, or nothing."""

OPTIONS = {"caption": "captions (--prompt)", "label": "classes (--classes)"}
"""The inputs that stand on the command line, with the words for them."""


@dataclass(frozen=True)
class InputGroup:
    """The inputs of those conditions that one program can draw together."""

    rows: Int64[np.ndarray, "n"]
    """Which of the conditions they are."""
    inputs: Mapping[str, np.ndarray]
    """By name, [n, ...]."""
    uncond: Mapping[str, np.ndarray]
    """What is guided away from, by name, [1, ...]; empty where the model has no such."""
    worn: Worn = Worn()
    """The adapters and hypernetworks that they are drawn with."""

    def images(self, num: int) -> Int64[np.ndarray, "k"]:
        """Places of the images, `num` of each condition, among those of all conditions."""
        return (self.rows[:, None] * num + np.arange(num)).reshape(-1)

    def of(self, rows: Int64[np.ndarray, "b"]) -> dict[str, np.ndarray]:
        """The inputs of these conditions, which must be among `rows`."""
        places = np.searchsorted(self.rows, rows)
        return {name: value[places] for name, value in self.inputs.items()}

    def divided(self, worn: Sequence[Worn]) -> "list[InputGroup]":
        """By what each of all conditions is drawn with."""
        own = [worn[row] for row in self.rows]
        rows = {one: self.rows[[one == other for other in own]] for one in dict.fromkeys(own)}
        return [replace(self, rows=r, inputs=self.of(r), worn=one) for one, r in rows.items()]

    def negative(self, size: int) -> dict[str, np.ndarray]:
        """The unconditional inputs, `size` times."""
        return {name: np.repeat(value, size, axis=0) for name, value in self.uncond.items()}


def open_tokenizer(
    conditioners: Sequence[cfg.Conditioner], path: Path | None, model: str | Path
) -> Tokenizer | None:
    """The tokenizer that a text-conditional model needs; None for others.

    Raises:
        TokenizerError: it is missing or damaged.
    """
    text = cfg.find(conditioners, cfg.TextConditioner)
    if text is None:
        return None
    if path is None:
        raise TokenizerError(
            f"{model} has no tokenizer; name a folder with its files: --tokenizer=FOLDER "
            "(vocab.json and merges.txt for CLIP, vocab.txt for BERT)"
        )
    return read_tokenizer(path, text)


def encode_conditions(
    conditioners: Sequence[cfg.Conditioner],
    tokenizer: Tokenizer | None,
    conditions: Sequence[Condition],
    negative: Condition,
    emphasis: bool = True,
    skip_unknown: bool = False,
    words: EmbeddingWords | None = None,
) -> tuple[InputGroup, ...]:
    """The inputs of all conditions, grouped by shape, each beside unconditional ones of its shape.

    A condition's group does not depend on the others': prompts for CLIP have as many chunks as
    they or the negative prompt need.

    Args:
        conditioners: the model's.
        tokenizer: the model's, if it takes captions.
        conditions: what is drawn.
        negative: what is guided away from.
        emphasis: whether brackets in prompts are emphasis, not text.
        skip_unknown: whether words that the tokenizer does not know are left out.
        words: those of prompts that have vectors of their own.

    Raises:
        ValueError: a condition of another kind than the model takes, a class that does not exist,
            words that a tokenizer does not know, or syntax that has no meaning.
    """
    _check_kinds(conditioners, [*conditions, negative])
    inputs: dict[str, np.ndarray] = {}
    uncond: dict[str, np.ndarray] = {}
    for conditioner in conditioners:
        match conditioner:
            case cfg.TextConditioner(encoder=encoder, chunked=True):
                length = encoder.max_length
                return _chunked(tokenizer, conditions, negative, length, emphasis, words)
            case cfg.TextConditioner(encoder=encoder):
                captions = ["" if c is None else str(c) for c in (*conditions, negative)]
                if emphasis:
                    prompts.refuse_emphasis(captions)
                check_words(tokenizer, captions[:-1], captions[-1], skip_unknown)
                replaced = list if words is None else words.replaced
                tokens = tokenizer.encode(captions, encoder.max_length, skip_unknown, replaced)
                inputs["caption"], uncond["caption"] = tokens[:-1], tokens[-1:]
            case cfg.ClassConditioner(num_classes=count):
                inputs["label"] = _labels(conditions, count)
                uncond["label"] = _labels([negative], count)
    return (InputGroup(np.arange(len(conditions)), inputs, uncond),)


def _chunked(
    tokenizer: Tokenizer,
    conditions: Sequence[Condition],
    negative: Condition,
    length: int,
    emphasis: bool,
    words: EmbeddingWords | None,
) -> tuple[InputGroup, ...]:
    """One group for each number of chunks, conditions in order."""
    groups: dict[int, list[tuple[int, prompts.Tokens]]] = {}
    for row, caption in enumerate(conditions):
        pair = prompts.encode(tokenizer, [caption or "", negative or ""], length, emphasis, words)
        groups.setdefault(pair.ids.shape[1], []).append((row, pair))
    return tuple(
        InputGroup(
            rows=np.asarray([row for row, _ in group]),
            inputs={
                "caption": np.stack([pair.ids[0] for _, pair in group]),
                "caption_weights": np.stack([pair.weights[0] for _, pair in group]),
            },
            uncond={
                "caption": group[0][1].ids[1:], "caption_weights": group[0][1].weights[1:]
            },
        )
        for group in groups.values()
    )  # fmt: skip


def _check_kinds(conditioners: Sequence[cfg.Conditioner], conditions: Sequence[Condition]) -> None:
    taken = [name for c in conditioners for name in c.inputs]
    for condition in conditions:
        if condition is None:
            continue
        name = "caption" if isinstance(condition, str) else "label"
        if name not in taken:
            said = (OPTIONS.get(n, f"{n} (--{n})") for n in dict.fromkeys(taken))
            wanted = " and ".join(said) or "nothing"
            raise ValueError(
                f"this model is conditioned on {wanted}, not on {OPTIONS[name]}: {condition!r}"
            )


def _labels(conditions: Sequence[Condition], count: int) -> np.ndarray:
    for label in conditions:
        if label is not None and not 0 <= label < count:
            raise ValueError(f"class {label} does not exist; this model has 0 to {count - 1}")
    return np.asarray([count if label is None else label for label in conditions], np.int32)


@dataclass(frozen=True)
class Picture:
    """What drawing starts from, instead of noise drawn from the seed; what is None is absent."""

    image: UInt8[np.ndarray, "h w 3"] | None = None
    """Drawn on, with `strength`."""
    mask: Float32[np.ndarray, "h w"] | None = None
    """1 where `image` is painted anew, 0 where it is kept."""
    noise: Float32[np.ndarray, "n zh zw z"] | None = None
    """Standard normal starting noise for each picture."""
    hints: Hints | None = None
    """For ControlNets."""
    shown: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Named inputs that are the same for all pictures, such as `low_res`, without rows."""


NO_PICTURE = Picture()
