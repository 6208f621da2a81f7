"""Norms of gradients and updates: of all parameters together, and of each part of the networks."""

import re
from typing import Any

import optax
from jaxtyping import Array, Float

from ldm_jax.core import tree

BETWEEN = r"\badapters/(\d+/)?|(?<=\bcontrol/)\d+/"
"""Levels that an adapter's parameters have between the names of a network and of its parts."""


def norms(values: Any, name: str, depth: int) -> dict[str, Float[Array, ""]]:
    """The Euclidean norm of a tree as `name`, and that of each of its parts as `name/PART`.

    Args:
        values: gradients or updates, in the structure of the parameters.
        name: of the metric.
        depth: levels down to which parts are told apart (`part_of`); 0: of all together alone.
    """
    found = {name: optax.tree.norm(values)}
    if depth:
        parts: dict[str, list[Array]] = {}
        for path, leaf in tree.flatten(values).items():
            parts.setdefault(part_of(path, depth), []).append(leaf)
        found |= {f"{name}/{part}": optax.tree.norm(leaves) for part, leaves in parts.items()}
    return found


def part_of(path: str, depth: int) -> str:
    """The part that a parameter belongs to: the first `depth` levels of its path, without its own
    name. `unet/down_blocks/0/resnets/0/conv1/kernel` is of `unet`, `unet/down_blocks`,
    `unet/down_blocks/0` …; what an adapter adds is of the part that it changes."""
    path = re.sub(BETWEEN, "", path)
    return "/".join(path.split("/")[:-1][:depth]) or path
