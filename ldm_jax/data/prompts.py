"""Prompts with emphasis to chunks of token numbers and a weight for each token; what the weights
do is in `ldm_jax.models.emphasis`."""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32

from ldm_jax.data.embedding_words import EmbeddingWords
from ldm_jax.data.tokenizer import Tokenizer

STRONGER, WEAKER = 1.1, 1 / 1.1
MAX_WEIGHT = 100.0
"""Weights beyond this are refused: half precision could not hold what they multiply."""

Piece = tuple[str, float]
"""Text and the weight of its tokens."""

# A backslash takes the next bracket or backslash literally; alone it vanishes.
_SYNTAX = re.compile(
    r"\\(?P<literal>[()\[\]\\]?)"
    r"|(?P<open>[(\[])"
    r"|:\s*(?P<weight>[+-]?[\d.]+)\s*\)"
    r"|(?P<close>[)\]])"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_AND = re.compile(r"\bAND\b")
_ADAPTER = re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>", re.IGNORECASE)
_EMPHASIS = re.compile(r"(?<!\\)(\([^()]*\)|\[[^\[\]]*\])")
_ENDS_IN_NUMBER = re.compile(r":\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*$")


class PromptError(ValueError):
    """A prompt whose syntax has no meaning here."""


class Tokens(NamedTuple):
    """Token numbers of prompts in chunks of a text encoder's length, and a weight for each."""

    ids: Int32[np.ndarray, "b chunks l"]
    weights: Float32[np.ndarray, "b chunks l"]


Chunk = list[tuple[int, float]]
"""Token numbers and their weights."""


def encode(
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    max_length: int = 77,
    emphasis: bool = True,
    words: EmbeddingWords | None = None,
) -> Tokens:
    """Token numbers and weights of each prompt, in chunks of `max_length`.

    Each chunk is a start token, up to `max_length` − 2 of the prompt's, an end token, and padding
    as the tokenizer has it; start, end and padding weigh 1. All prompts get as many chunks as the
    longest needs, with chunks of the empty prompt. A prompt of one chunk without syntax has
    exactly the tokens that `tokenizer.encode` gives it.

    Args:
        emphasis: whether brackets, backslashes and BREAK have a meaning. Without, every prompt
            is taken literally.
        words: those with vectors of their own, which no chunk cuts apart.

    Raises:
        PromptError: as `chunks_of` does, or a tokenizer without start and end tokens.
    """
    if tokenizer.start_id is None or tokenizer.end_id is None:
        raise PromptError(
            "chunks need a tokenizer with start and end tokens, as CLIP's; this one has none. Use "
            "its own encode"
        )
    room = max_length - 2
    prompts_chunks = []
    for prompt in prompts:
        chunks = chunks_of(tokenizer, prompt, room, emphasis, words)
        # BREAK at the end starts nothing.
        prompts_chunks.append(chunks if chunks[-1] else chunks[:-1] or chunks)
    count = max(map(len, prompts_chunks), default=0)
    ids = np.full((len(prompts), count, max_length), tokenizer.pad_id, np.int32)
    ids[..., 0], ids[..., 1] = tokenizer.start_id, tokenizer.end_id
    weights = np.ones(ids.shape, np.float32)
    for i, chunks in enumerate(prompts_chunks):
        for j, chunk in enumerate(chunks):
            stop = 1 + len(chunk)
            ids[i, j, 1:stop] = [number for number, _ in chunk]
            ids[i, j, stop] = tokenizer.end_id
            weights[i, j, 1:stop] = [weight for _, weight in chunk]
    return Tokens(ids, weights)


def chunks_of(
    tokenizer: Tokenizer,
    prompt: str,
    room: int,
    emphasis: bool = True,
    words: EmbeddingWords | None = None,
) -> list[Chunk]:
    """The chunks of a prompt, of `room` tokens at most, without start and end; BREAK begins one,
    which may be empty. Arguments are those of `encode`.

    Raises:
        PromptError: as `parse` does, or a word of more vectors than a chunk has room for.
    """
    sections = parse(prompt) if emphasis else [[(prompt, 1.0)]]
    words = words or EmbeddingWords(tokenizer)
    return [chunk for section in sections for chunk in _chunks(tokenizer, section, room, words)]


def _chunks(
    tokenizer: Tokenizer, section: list[Piece], room: int, words: EmbeddingWords
) -> Iterator[Chunk]:
    """Those of a section; one empty chunk if it has no tokens."""
    chunk: Chunk = []
    for text, weight in section:
        for ids, word in words.units(tokenizer.pieces(text)):
            if len(ids) > room:
                raise PromptError(
                    f"the embedding {word!r} has {len(ids)} vectors; a chunk of the prompt has "
                    f"room for {room}"
                )
            if len(chunk) + len(ids) > room:
                yield chunk
                chunk = []
            chunk += [(number, weight) for number in ids]
    yield chunk


def parse(prompt: str) -> list[list[Piece]]:
    """The sections of a prompt, which BREAK separates; each is text with its weights.

    `(x)` is x stronger by 1.1, `[x]` weaker by 1.1, `(x:1.3)` weighs 1.3; they nest, and the
    weights multiply. A backslash makes the bracket or backslash after it literal, and vanishes
    elsewhere. A bracket that is never closed reaches to the prompt's end; one that was never
    opened is literal. Round and square brackets do not see each other, so they may cross.
    Neighbours of the same weight are one piece. Nothing of the text is stripped but the
    white space around BREAK.

    Raises:
        PromptError: a weight that is no number or beyond ±100; or syntax of the web UI that is
            not supported: prompt editing `[a:b:0.5]`, alternation `[a|b]`, AND, and
            `<lora:…>` and `<hypernet:…>` that nobody has cut out (`adapter_tags`).
    """
    why = "LoRA and hypernetworks are named in the positive prompt only; leave it out"
    _refuse(_ADAPTER.search(prompt), prompt, why)
    sections: list[list[Piece]] = [[]]
    # Where each open bracket stands: section and piece in it, and character in the prompt.
    opened: dict[str, list[tuple[int, int, int]]] = {"(": [], "[": []}

    def add(text: str, literal: bool = False) -> None:
        if literal:
            sections[-1].append((text, 1.0))
            return
        _refuse(_AND.search(text), prompt, "AND cannot combine prompts; write it in lower case")
        first, *rest = _BREAK.split(text)
        sections[-1].append((first, 1.0))
        sections.extend([(part, 1.0)] for part in rest)

    def scale(since: tuple[int, int, int], factor: float) -> None:
        for i in range(since[0], len(sections)):
            for j in range(since[1] if i == since[0] else 0, len(sections[i])):
                text, weight = sections[i][j]
                sections[i][j] = text, weight * factor

    end = 0
    for match in _SYNTAX.finditer(prompt):
        add(prompt[end : match.start()])
        end = match.end()
        if match["literal"] is not None:
            add(match["literal"], literal=True)
        elif match["open"]:
            opened[match["open"]].append((len(sections) - 1, len(sections[-1]), end))
        elif match["weight"] and opened["("]:
            scale(opened["("].pop(), _weight(match["weight"], prompt))
        elif match["close"] == ")" and opened["("]:
            scale(opened["("].pop(), STRONGER)
        elif match["close"] == "]" and opened["["]:
            since = opened["["].pop()
            _check_square(prompt[since[2] : match.start()], prompt)
            scale(since, WEAKER)
        else:
            add(match[0])
    add(prompt[end:])
    for since in opened["("]:
        scale(since, STRONGER)
    for since in opened["["]:
        scale(since, WEAKER)
    return [_merge(section) for section in sections]


def refuse_emphasis(prompts: Sequence[str]) -> None:
    """Raises PromptError for text in brackets, which only CLIP's text encoder takes as emphasis."""
    for prompt in prompts:
        if match := _EMPHASIS.search(prompt):
            raise PromptError(
                f"{_short(match[0])} in the prompt {_short(prompt)}: emphasis in brackets needs "
                "CLIP's text encoder, and this model has another; leave the brackets out, or take "
                "them as text with --literal_prompts"
            )


def _merge(section: list[Piece]) -> list[Piece]:
    merged: list[Piece] = []
    for text, weight in section:
        if not text:
            continue
        if merged and merged[-1][1] == weight:
            merged[-1] = merged[-1][0] + text, weight
        else:
            merged.append((text, weight))
    for _, weight in merged:
        if abs(weight) > MAX_WEIGHT:
            raise PromptError(
                f"brackets multiply to a weight of {weight:.4g}; it must be within ±{MAX_WEIGHT:g}"
            )
    return merged


def _weight(text: str, prompt: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise PromptError(
            f"{text!r} in the prompt {_short(prompt)} is no number; write (words:1.3), or escape "
            r"the brackets as \( and \)"
        ) from None


def _check_square(inside: str, prompt: str) -> None:
    plain = re.sub(r"\\.", "", inside)
    if "|" in plain or _ENDS_IN_NUMBER.search(plain):
        raise PromptError(
            f"[{inside}] in the prompt {_short(prompt)}: prompts cannot change while a picture is "
            r"drawn; write (words:0.9) for less weight, or escape the brackets as \[ and \]"
        )


def _refuse(match: re.Match | None, prompt: str, why: str) -> None:
    if match:
        raise PromptError(
            f"{match[0]!r} in the prompt {_short(prompt)}: {why}, or take the prompt "
            "literally (--literal_prompts)"
        )


def _short(prompt: str) -> str:
    return repr(prompt if len(prompt) <= 80 else prompt[:77] + "...")
