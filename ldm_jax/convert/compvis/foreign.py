"""Single files as others have left them, under the names that CompVis' code gives: without wrappers
around all names, and with averages in the place of weights that were left out."""

import re
from collections.abc import Mapping

import numpy as np

from ldm_jax.convert.compvis import keys
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import shown

Tensors = dict[str, np.ndarray]

_WRAPPERS = ("module.", "model.", "state_dict.", "_orig_mod.")
"""What training in parallel, an outer module or a compiler puts before every name."""
_FIRST = "input_blocks.0.0.weight"
_MODEL = keys.UNET + _FIRST
_AVERAGE = keys.ema_name(_MODEL)
_ENCODER = "encoder.conv_in.weight"
_PARTS = (
    keys.UNET,
    keys.FIRST_STAGE,
    keys.CONDITIONER,
    keys.EMA,
)


def unwrapped(tensors: Tensors) -> Tensors:
    """`tensors` without what stands before the names of all of them."""
    while tensors and not (is_model(tensors) or is_first_stage(tensors)):
        wrapper = next((w for w in _WRAPPERS if all(name.startswith(w) for name in tensors)), None)
        if wrapper is None:
            break
        tensors = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return tensors


def is_model(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether there is a U-Net, if only its averages."""
    return _MODEL in tensors or _AVERAGE in tensors


def has_averages_alone(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a U-Net has averages and no other weights."""
    return _AVERAGE in tensors and _MODEL not in tensors


def is_first_stage(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether there is a first stage and no U-Net, with or without its prefix in a whole model."""
    named = {_ENCODER, keys.FIRST_STAGE + _ENCODER}
    return not is_model(tensors) and not named.isdisjoint(tensors)


def first_stage(tensors: Tensors) -> Tensors:
    """The tensors of a first stage alone without their prefix in a whole model."""
    prefix = keys.FIRST_STAGE
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def parts_of(tensors: Mapping[str, np.ndarray]) -> str:
    """The prefixes of the parts that the file has, for errors."""
    there = [f"{part}*" for part in _PARTS if any(name.startswith(part) for name in tensors)]
    return ", ".join(there)


_WORDS = sorted(
    (
        "diffusion_model", "time_embed", "label_emb", "input_blocks", "output_blocks",
        "middle_block", "in_layers", "emb_layers", "out_layers", "skip_connection",
        "transformer_blocks", "proj_in", "proj_out", "to_out", "to_q", "to_k", "to_v", "attn1",
        "attn2", "ff", "net", "proj", "norm1", "norm2", "norm3", "norm", "qkv", "op", "conv", "out",
        "weight", "bias",
    ),
    key=len, reverse=True,
)  # fmt: skip
_WORD = re.compile(rf"({'|'.join(_WORDS)})(\d*)")


def averages_as_weights(tensors: Tensors) -> Tensors:
    """The U-Net's averages under the names of its weights, where the file has averages alone.

    Names of averages have lost their dots; the words of a U-Net tell where they were.

    Raises:
        ConvertError: a name that has other words.
    """
    found = {}
    for name, tensor in tensors.items():
        average = name.startswith(f"{keys.EMA}diffusion_model")
        found[_dotted(name) if average else name] = tensor
    return found


def _dotted(average: str) -> str:
    rest, levels = average.removeprefix(keys.EMA), ["model"]
    while match := _WORD.match(rest):
        word, number = match.groups()
        rest = rest[match.end() :]
        # Blocks have two numbers, of which the second has one digit.
        blocks = word in ("input_blocks", "output_blocks")
        numbers = [number[:-1], number[-1:]] if blocks else [number]
        levels += [word, *filter(None, numbers)]
    name = ".".join(levels)
    if rest or keys.ema_name(name) != average:
        raise ConvertError(f"it has only averages, and {average} is not a parameter of a U-Net")
    return name


def repeated_first_stage(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Names of a first stage that stands once more in the place of the condition's encoder, as
    inpainting models have it, and why they are not used.

    Raises:
        ConvertError: it is another than the model's first stage.
    """
    if keys.CONDITIONER + _ENCODER not in tensors:
        return {}
    found = [name for name in tensors if name.startswith(keys.CONDITIONER)]
    for name in found:
        first = tensors.get(keys.FIRST_STAGE + name.removeprefix(keys.CONDITIONER))
        if first is None or not np.array_equal(first, tensors[name]):
            raise ConvertError(
                f"its condition is encoded by another network than the first stage ({shown(name)} "
                "differs), which is not supported"
            )
    return dict.fromkeys(found, "the first stage once more, which encodes the masked image")
