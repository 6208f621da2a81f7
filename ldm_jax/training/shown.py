"""Which examples and which wishes of the user are drawn as training goes on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.data.inputs import InputMaker
from ldm_jax.data.loader import spread
from ldm_jax.data.sources import Example, Source
from ldm_jax.data.tokenizer import Tokenizer
from ldm_jax.data.unknown_words import told_words
from ldm_jax.training.stage import Shown

SHOWN_EXAMPLES = 16


def shown_examples(
    data: cfg.Data, train: Source, validation: Source | None
) -> Iterator[tuple[str, list[Example]]]:
    """Examples that are trained on, and, where there are any, examples that are held out."""
    yield "training", spread(train, data, SHOWN_EXAMPLES)
    if validation is not None:
        yield "held_out", spread(validation, data, SHOWN_EXAMPLES)


def shown_conditions(
    run: cfg.DiffusionRun,
    draw: Callable[[Any, Any, Any], Any],
    inputs: InputMaker,
    tokenizer: Tokenizer | None,
    train: Source,
    validation: Source | None,
) -> tuple[Shown, ...]:
    """What stage two draws: pictures for captions or classes of examples, and for those that the
    user asks for; for a model without conditions just pictures.

    Raises:
        cfg.ConfigError: a prompt has words that the tokenizer does not know, or a class does not
            exist.
    """
    asked = [
        ("prompts", prompt_inputs(run, inputs, tokenizer), run.loop.prompts),
        ("classes", class_inputs(run, inputs, train.class_names), run.loop.classes),
    ]
    if not run.loop.sample_every:
        return ()
    if not run.conditioners:
        return (Shown("samples", draw, _batch([{}] * SHOWN_EXAMPLES)),)
    text = cfg.find(run.conditioners, cfg.TextConditioner) is not None
    found = []
    for name, examples in shown_examples(run.data, train, validation):
        labels = [one["caption"] if text else train.class_names[one["label"]] for one in examples]
        found.append((name, [inputs(one) for one in examples], labels))
    return tuple(
        Shown(name, draw, _batch(rows), tuple(labels))
        for name, rows, labels in (*found, *asked)
        if rows
    )


def _batch(rows: Sequence[Any]) -> dict[str, Any]:
    """The inputs of examples, which start from the noise of their place among them."""
    inputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {"inputs": inputs, "index": np.arange(len(rows), dtype=np.uint32)}


def prompt_inputs(
    run: cfg.DiffusionRun, inputs: InputMaker, tokenizer: Tokenizer | None
) -> list[dict[str, np.ndarray]]:
    """The inputs of `loop.prompts`."""
    asked = list(run.loop.prompts)
    if not asked:
        return []
    for one in tokenizer.unknown(asked):
        raise cfg.ConfigError(
            f"loop.prompts has {one.caption!r}, but the tokenizer does not know "
            f"{told_words(one.words, tokenizer.known_words())}; choose words of the captions"
        )
    length = cfg.find(run.conditioners, cfg.TextConditioner).encoder.max_length
    return [{**inputs.uncond(), "caption": row} for row in tokenizer.encode(asked, length)]


def class_inputs(
    run: cfg.DiffusionRun, inputs: InputMaker, names: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """The inputs of `loop.classes`."""
    numbers = [_class_number(word, names) for word in run.loop.classes]
    return [{**inputs.uncond(), "label": np.asarray(n, np.int32)} for n in numbers]


def _class_number(word: str, names: Sequence[str]) -> int:
    if word in names:
        return names.index(word)
    if word.isascii() and word.isdecimal() and int(word) < len(names):
        return int(word)
    some = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    raise cfg.ConfigError(
        f"loop.classes has {word!r}, which is not a class; there are {some}, and the numbers from "
        f"0 to {len(names) - 1}"
    )
