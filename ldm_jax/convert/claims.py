"""What a config claims, compared with the tensors beside it before anything is built of it.

Networks are built, if only as shapes, in time that grows with their depth: a config that claims
hundreds of blocks which its file does not have would take minutes to be found wrong.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ldm_jax.convert.imported_model import ConvertError

DEPTHS = {"layers_per_block", "transformer_layers", "layers"}
"""Numbers of modules, each of which has a tensor of its own."""
WIDTHS = {
    "image_channels", "latent_channels", "in_channels", "out_channels", "concat_channels",
    "block_out_channels", "context_dim", "pooled_dim", "class_count", "num_classes", "vocab_size",
    "max_length", "positions", "block_size", "box_map_channels", "width", "intermediate",
    "head_dim", "size", "channels", "code_dim", "patch_size", "hint_channels", "hint_widths",
    "embedding",
}  # fmt: skip
"""Numbers that some tensor is as long as, at least."""
OTHERS = {
    "norm_num_groups", "num_heads", "skip_last", "num_timesteps", "image_size", "levels",
    "revive_after", "steps_offset", "trained_levels", "usual_level", "max_objects", "grid",
    "ignore", "shift", "n_unmasked", "end_token",
}  # fmt: skip
"""Numbers that divide others, or that no tensor depends on."""


def check(config: Any, tensors: Mapping[str, np.ndarray], where: str) -> None:
    """Refuses a model, or a part of one, that these tensors cannot be.

    Args:
        config: any of the dataclasses that a `cfg.Model` has.
        tensors: those of its file.
        where: the file with the claim, for the error.

    Raises:
        ConvertError: names the number, and what there is for it.
    """
    if not tensors:
        return  # what is missing is named when they are read, and pixels have none
    count, largest = len(tensors), max(tensor.size for tensor in tensors.values())
    for part, name, value in _numbers(config):
        if name in DEPTHS and value > count:
            what = f"more than the weights, {count} tensors, have"
        elif name in WIDTHS and value > largest:
            what = f"more than the largest of the weights, {largest} numbers, has"
        else:
            continue
        raise ConvertError(f"{where} says {part}.{name} is {value}, {what}; one of them is wrong")


def _parts(config: Any) -> Iterator[Any]:
    """The dataclass and those in it."""
    yield config
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(one):
                yield from _parts(one)


def _numbers(config: Any) -> Iterator[tuple[str, str, int]]:
    """Class, field and value of all whole numbers; of tuples, all of theirs."""
    for part in _parts(config):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            for one in value if isinstance(value, tuple) else (value,):
                if type(one) is int:
                    yield type(part).__name__, field.name, one
