"""Which examples and which wishes of the user are drawn as training goes on."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.data.input_views import views_of
from ldm_jax.data.inputs import InputMaker
from ldm_jax.data.loader import TASK_SEED, spread
from ldm_jax.data.sources import Example, Source
from ldm_jax.data.tokenizer import Tokenizer
from ldm_jax.data.unknown_words import told_words
from ldm_jax.training.stage import Shown

SHOWN_EXAMPLES = 16
Drawn = cfg.DiffusionRun | cfg.CodeTransformerRun
"""Runs whose models draw."""


def shown_examples(
    data: cfg.Data, train: Source, validation: Source | None
) -> Iterator[tuple[str, list[Example]]]:
    """Examples that are trained on, and, where there are any, examples that are held out."""
    yield "training", spread(train, data, SHOWN_EXAMPLES)
    if validation is not None:
        yield "held_out", spread(validation, data, SHOWN_EXAMPLES)


def shown_conditions(
    run: Drawn,
    draw: Callable[[Any, Any, Any], Any],
    inputs: InputMaker,
    tokenizer: Tokenizer | None,
    train: Source,
    validation: Source | None,
) -> tuple[Shown, ...]:
    """What stage two draws: pictures for the conditions of examples, and for the captions or
    classes that the user asks for; for a model without conditions just pictures. Where it is
    conditioned on pictures, these stand before the drawing and the true image after it.

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
    found = []
    for name, examples in shown_examples(run.data, train, validation):
        rows = [inputs(one, place, TASK_SEED) for place, one in enumerate(examples)]
        batch = _batch(rows)
        views = [
            views_of(row, one.get("image"), run.conditioners, run.data.sides)
            for row, one in zip(rows, examples, strict=True)
        ]
        if views[0]:
            batch["views"] = np.stack(views)
            batch["image"] = np.stack([one["image"] for one in examples])
        found.append(Shown(name, draw, batch, tuple(_label(run, train, one) for one in examples)))
    asked_for = (
        Shown(name, draw, _batch(rows), tuple(words)) for name, rows, words in asked if rows
    )
    return (*found, *asked_for)


def _label(run: Drawn, source: Source, example: Example) -> str:
    """What is written under the picture of an example."""
    if cfg.find(run.conditioners, cfg.TextConditioner) is not None:
        return example["caption"]
    if cfg.find(run.conditioners, cfg.ClassConditioner) is not None:
        return source.class_names[example["label"]]
    return example["name"]


def _batch(rows: Sequence[Any]) -> dict[str, Any]:
    """The inputs of examples, which start from the noise of their place among them."""
    inputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {"inputs": inputs, "index": np.arange(len(rows), dtype=np.uint32)}


def prompt_inputs(
    run: Drawn, inputs: InputMaker, tokenizer: Tokenizer | None
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
    return [{**inputs.of_drawing(), "caption": inputs.tokens(one, length)} for one in asked]


def class_inputs(
    run: Drawn, inputs: InputMaker, names: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """The inputs of `loop.classes`."""
    numbers = [_class_number(word, names) for word in run.loop.classes]
    return [{**inputs.of_drawing(), "label": np.asarray(n, np.int32)} for n in numbers]


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
