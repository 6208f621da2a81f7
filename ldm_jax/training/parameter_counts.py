"""How many parameters a run trains, and how many it leaves as they are."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ldm_jax.core import tree

SMALL = 0.01
"""Parts of a smaller share are not named."""
PARTS = {"autoencoder": "first stage", "perceptual": "LPIPS"}
ABOVE = ("conditioners", "untrained")
"""Levels of a tree whose parts are named themselves."""


def parameters_note(state: Any, frozen: Any) -> str:
    """The numbers of parameters in words.

    Args:
        state: a `TrainState`, of arrays or of shapes.
        frozen: what the stage leaves as it is.
    """
    trained = _counts(state.params)
    if discriminator := tree.flatten(getattr(state.own, "discriminator", {})):
        values = [leaf for path, leaf in discriminator.items() if path.startswith("params/")]
        trained["discriminator"] = tree.count(values)
    text = f"training {_told(trained)}"
    # What latents are normalised with stands beside the networks and is no part of them.
    others = _counts({name: part for name, part in frozen.items() if isinstance(part, Mapping)})
    return f"{text}; frozen: {_told(others)}" if others.total() else text


def _counts(params: Any) -> Counter[str]:
    found: Counter[str] = Counter()
    for path, leaf in tree.flatten(params).items():
        names = [name for name in path.split("/") if name not in ABOVE]
        found[PARTS.get(names[0], names[0])] += leaf.size
    return found


def _told(counts: Counter[str]) -> str:
    total = counts.total()
    large = [(name, n) for name, n in counts.most_common() if n >= SMALL * total]
    parts = [f"{name} {_short(n)}" for name, n in large] if len(large) > 1 else [large[0][0]]
    return f"{_short(total)} parameters ({', '.join(parts)})"


def _short(count: int) -> str:
    for unit, word in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.3g} {word}"
    return str(count)
