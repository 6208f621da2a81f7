"""The names of CompVis' single files for the parameters that diffusers and transformers name.

Every module there has one name for its place and one for its part in the block; a table of both is
all the difference, but for attention whose query, key and value are one tensor there.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.reading import shown

UNET = "model.diffusion_model."
FIRST_STAGE = "first_stage_model."
CONDITIONER = "cond_stage_model."
CLIP = "cond_stage_model.transformer."
OPEN_CLIP = "cond_stage_model.model."
EMA = "model_ema."
LOW_RES = "low_scale_model."


@dataclass(frozen=True)
class Place:
    """Where a tensor of diffusers is in the single file."""

    name: str
    """Without the component's prefix."""
    part: int | None = None
    """0, 1 or 2 where query, key and value are one tensor there; None where it stands alone."""
    heads: int = 1
    """In a tensor of all three, the rows of one head after the other: its query, key, value."""
    trailing: int = 0
    """Axes of one element that the tensor there has more: 1 or 2 for pointwise convolutions."""


def ema_name(name: str) -> str:
    """The name of the average of the parameter `name`, a whole name in the file."""
    return EMA + name.removeprefix("model.").replace(".", "")


def unet_places(names: Iterable[str], config: cfg.UNet) -> dict[str, Place]:
    """Where a U-Net's parameters are, by diffusers name."""
    return {name: _unet_place(name, config) for name in names}


_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "class_embedding": "label_emb", "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0",
    "conv_out": "out.2",
}  # fmt: skip
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_QKV = {"to_q": 0, "to_k": 1, "to_v": 2}


def _unet_place(name: str, config: cfg.UNet) -> Place:
    module, _, kind = name.rpartition(".")
    if module in _UNET_ENDS:
        return Place(f"{_UNET_ENDS[module]}.{kind}")
    found = re.fullmatch(r"(down_blocks\.\d+|up_blocks\.\d+|mid_block)\.(\w+)\.(\d+)\.(.+)", module)
    if found is None:
        raise ConvertError(f"the U-Net's {name} does not exist in CompVis files")
    block, group, j, inner = found[1], found[2], int(found[3]), found[4]
    place, level = _unet_block(block, group, j, config)
    if group == "attentions":
        return _unet_attention(place, inner, kind, config, level)
    if inner == "conv":
        return Place(f"{place}.{'op' if group == 'downsamplers' else 'conv'}.{kind}")
    return Place(f"{place}.{_RESNET[inner]}.{kind}")


def _unet_block(block: str, group: str, j: int, config: cfg.UNet) -> tuple[str, int]:
    """Where a residual block, an attention or a change of resolution is, and on which level."""
    levels, per_level = len(config.block_out_channels), config.layers_per_block + 1
    side, _, number = block.partition(".")
    if side == "mid_block":
        return f"middle_block.{1 if group == 'attentions' else 2 * j}", levels - 1
    i = int(number)
    if side == "down_blocks":
        if group == "downsamplers":
            return f"input_blocks.{(i + 1) * per_level}.0", i
        return f"input_blocks.{i * per_level + j + 1}.{int(group == 'attentions')}", i
    level = levels - 1 - i
    if group == "upsamplers":
        last = i * per_level + config.layers_per_block
        return f"output_blocks.{last}.{2 if config.attention[level] else 1}", level
    return f"output_blocks.{i * per_level + j}.{int(group == 'attentions')}", level


def _unet_attention(place: str, inner: str, kind: str, config: cfg.UNet, level: int) -> Place:
    if config.attention_kind == "transformer":
        return Place(f"{place}.{inner}.{kind}")
    if inner in _QKV:
        trailing = 1 if kind == "weight" else 0
        return Place(f"{place}.qkv.{kind}", _QKV[inner], config.num_heads[level], trailing)
    if inner == "to_out.0":
        return Place(f"{place}.proj_out.{kind}", trailing=1 if kind == "weight" else 0)
    return Place(f"{place}.norm.{kind}")


_AUTOENCODER = {
    "conv_norm_out": "norm_out", "conv_shortcut": "nin_shortcut", "resnets": "block",
    "attentions": "attn", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
}  # fmt: skip


def autoencoder_places(names: Iterable[str], config: cfg.Autoencoder) -> dict[str, Place]:
    """Where a first stage's parameters are, by diffusers name."""
    levels = len(config.block_out_channels)

    def place(name: str) -> Place:
        there = name.replace("mid_block.attentions.0", "mid.attn_1")
        there = there.replace("mid_block.resnets.0", "mid.block_1")
        there = there.replace("mid_block.resnets.1", "mid.block_2")
        there = there.replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")
        there = there.replace("to_out.0", "proj_out").replace("down_blocks", "down")
        there = re.sub(r"up_blocks\.(\d+)", lambda match: f"up.{levels - 1 - int(match[1])}", there)
        there = ".".join(_AUTOENCODER.get(word, word) for word in there.split("."))
        pointwise = re.search(r"\.(to_q|to_k|to_v|to_out\.0)\.weight$", name)
        return Place(there, trailing=2 if pointwise else 0)

    return {name: place(name) for name in names}


def same_places(names: Iterable[str]) -> dict[str, Place]:
    """Of what has the same names: CLIP in SD 1 files, classes, projections of class maps."""
    return {name: Place(name) for name in names}


_OPEN_CLIP = {
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.weight": "ln_final.weight",
    "text_model.final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip
_PROJECTIONS = {"self_attn.q_proj": 0, "self_attn.k_proj": 1, "self_attn.v_proj": 2}


def open_clip_places(names: Iterable[str]) -> dict[str, Place]:
    """Where CLIP's parameters are in SD 2 files, which hold OpenCLIP's, below `OPEN_CLIP`."""

    def place(name: str) -> Place:
        if name in _OPEN_CLIP:
            return Place(_OPEN_CLIP[name])
        _, i, inner, kind = re.split(r"layers\.(\d+)\.(.+)\.(weight|bias)$", name)[:4]
        layer = f"transformer.resblocks.{i}"
        if inner in _PROJECTIONS:
            return Place(f"{layer}.attn.in_proj_{kind}", _PROJECTIONS[inner])
        return Place(f"{layer}.{_OPEN_CLIP_LAYER[inner]}.{kind}")

    return {name: place(name) for name in names}


_BERT = {
    "model.embed_tokens.weight": "token_emb.weight",
    "model.embed_positions.weight": "pos_emb.emb.weight",
    "model.layer_norm.weight": "norm.weight",
    "model.layer_norm.bias": "norm.bias",
}
# (2 i or 2 i + 1, part)
_BERT_LAYER = {
    "self_attn_layer_norm": (0, "0"), "self_attn.q_proj": (0, "1.to_q"),
    "self_attn.k_proj": (0, "1.to_k"), "self_attn.v_proj": (0, "1.to_v"),
    "self_attn.out_proj": (0, "1.to_out"), "final_layer_norm": (1, "0"),
    "fc1": (1, "1.net.0.0"), "fc2": (1, "1.net.2"),
}  # fmt: skip


def bert_places(names: Iterable[str]) -> dict[str, Place]:
    """Where the parameters of the 1.45B model's text encoder are, below `CLIP`."""

    def place(name: str) -> Place:
        if name in _BERT:
            return Place(_BERT[name])
        _, i, inner, kind = re.split(r"layers\.(\d+)\.(.+)\.(weight|bias)$", name)[:4]
        odd, part = _BERT_LAYER[inner]
        return Place(f"attn_layers.layers.{2 * int(i) + odd}.{part}.{kind}")

    return {name: place(name) for name in names}


def read(
    tensors: Mapping[str, np.ndarray], places: Mapping[str, Place]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A component's tensors by diffusers name, and those that have no place, as they are."""
    found, used = {}, set()
    for name, place in places.items():
        if place.name not in tensors:
            continue  # whoever asked names what is missing
        used.add(place.name)
        tensor = tensors[place.name]
        found[name] = tensor if place.part is None else _take(tensor, place)
    return found, {name: tensor for name, tensor in tensors.items() if name not in used}


def _take(tensor: np.ndarray, place: Place) -> np.ndarray:
    rows, *columns = tensor.shape
    if rows % (3 * place.heads):
        raise ConvertError(
            f"{shown(place.name)} has {rows} rows, which are not queries, keys and values of "
            f"{place.heads} heads"
        )
    parts = tensor.reshape(place.heads, 3, rows // (3 * place.heads), *columns)
    return parts[:, place.part].reshape(rows // 3, *columns)


def write(tensors: Mapping[str, np.ndarray], places: Mapping[str, Place]) -> dict[str, np.ndarray]:
    """Undoes `read`: a component's tensors under the names of the single file."""
    out: dict[str, np.ndarray] = {}
    fused: dict[str, list[np.ndarray]] = {}
    for name, tensor in tensors.items():
        place = places[name]
        tensor = tensor.reshape(tensor.shape + (1,) * place.trailing)
        if place.part is None:
            out[place.name] = tensor
            continue
        parts = fused.setdefault(place.name, [tensor] * 3)
        parts[place.part] = tensor.reshape(place.heads, -1, *tensor.shape[1:])
    for name, parts in fused.items():
        rows = np.stack(parts, axis=1)
        out[name] = rows.reshape(-1, *rows.shape[3:])
    return out
