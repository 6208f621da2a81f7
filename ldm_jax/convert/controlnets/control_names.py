"""What ControlNets' parameters are called in the original's files, and what other files of the same
purpose hold."""

import re
from collections.abc import Iterable, Mapping

from ldm_jax import config as cfg
from ldm_jax.convert.compvis.keys import Place, unet_places
from ldm_jax.models.control_net import EMBEDDING

PREFIX = "control_model."
"""Before every name, in most of the original's files."""
HINT = "input_hint_block."
DIFFERENCE = "difference"
"""A key of files that hold what was added to the weights of the model they were trained beside."""
_ZERO = re.compile(r"controlnet_down_blocks\.(\d+)\.(weight|bias)")

OTHERS = {
    "lora_controlnet": "is a Control-LoRA, changes of low rank of another model's layers",
    "lllite_": "is a ControlNet-LLLite for SDXL, which changes attention and is another network",
    "adapter.": "is a T2I adapter, another network, whose features do not depend on the step",
    "body.": "is a T2I adapter, another network, whose features do not depend on the step",
    "ip_adapter.": "is an IP adapter, which adds attention to a picture",
    "image_proj.": "is an IP adapter, which adds attention to a picture",
    "task_embedding": "is a ControlNet for several kinds of hint at once (union) of SDXL",
    "control_add_embedding.": "is a ControlNet for several kinds of hint at once (union) of SDXL",
    "add_embedding.": "is a ControlNet for SDXL, which is not supported",
    "label_emb.0.": "is a ControlNet for SDXL, which is not supported",
    "controlnet_blocks.": "is a ControlNet for Flux or Stable Diffusion 3, which are not supported",
    "double_blocks.": "is a ControlNet for Flux, which is not supported",
}  # fmt: skip
"""What names begin with in files that are no ControlNet of Stable Diffusion 1 or 2, and why these
are not read."""

BESIDE = (
    (
        r"(model\.diffusion_model|first_stage_model|cond_stage_model|model_ema)\..*",
        "the model that it was trained beside",
    ),
    (r"\w+", "a table or a number of that model"),
)
"""What whole files have beside a ControlNet."""


def why_not(names: Iterable[str]) -> tuple[str, str] | None:
    """A name that no ControlNet has, and what it tells; None where there is none."""
    for name in names:
        bare = name.removeprefix(PREFIX)
        for start, why in OTHERS.items():
            if bare.startswith(start):
                return name, why
    return None


def control_places(names: Iterable[str], branch: cfg.ControlBranch) -> dict[str, Place]:
    """Where a ControlNet's parameters are in the original's files, by diffusers name, without
    `PREFIX`."""
    found, shared = {}, []
    last = 4 * (len(branch.hint_widths) - 1) + 2
    for name in names:
        module, _, kind = name.rpartition(".")
        zero = _ZERO.fullmatch(name)
        if module.startswith(f"{EMBEDDING}."):
            *_, part = module.split(".")
            number = {"conv_in": 0, "conv_out": last}.get(part)
            number = 2 * (int(part) + 1) if number is None else number
            found[name] = Place(f"{HINT}{number}.{kind}")
        elif zero is not None:
            found[name] = Place(f"zero_convs.{zero[1]}.0.{zero[2]}")
        elif module == "controlnet_mid_block":
            found[name] = Place(f"middle_block_out.0.{kind}")
        else:
            shared.append(name)
    return found | unet_places(shared, branch.unet)


def hint_widths(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Channels of the layers of a hint, from the shapes of a file of either form, by name."""
    widths = {}
    for name, shape in shapes.items():
        original = re.fullmatch(rf"{re.escape(HINT)}(\d{{1,3}})\.weight", name)
        block = re.fullmatch(rf"{EMBEDDING}\.blocks\.(\d{{1,3}})\.weight", name)
        if not shape:
            continue
        if original is not None:
            widths[int(original[1]) // 2] = shape[0]
        elif block is not None:
            widths[int(block[1]) + 1] = shape[0]
        elif name == f"{EMBEDDING}.conv_in.weight":
            widths[0] = shape[0]
    if f"{HINT}0.weight" in shapes and widths:
        widths.pop(max(widths))  # the last one gives the U-Net's features
    return tuple(widths[i] for i in sorted(widths) if i % 2 == 0)
