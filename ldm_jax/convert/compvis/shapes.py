"""What the shapes of a CompVis single file say about its architecture.

They say everything but numbers of heads, which stay 1 here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model
from ldm_jax.convert.imported_model import ConvertError

Tensors = Mapping[str, np.ndarray]
_GROUPS = 32
_DIGITS, _SHOWN = 9, 12


def _shape(tensors: Tensors, name: str, what: str) -> tuple[int, ...]:
    if name not in tensors:
        raise ConvertError(
            f"{what} has no {name}, which CompVis models have; it is another kind "
            "of model, or incomplete"
        )
    return tensors[name].shape


def _count(tensors: Tensors, pattern: str) -> int:
    """One more than the highest number that stands at the group of `pattern` in a name.

    Raises:
        ConvertError: it is more than the file has tensors.
    """
    found = (re.match(pattern, name) for name in tensors)
    highest = max((match[1] for match in found if match), key=_size, default="")
    if len(highest) > _DIGITS or (highest and int(highest) >= len(tensors)):
        raise ConvertError(
            f"it has a tensor of part {highest[:_SHOWN]} of {pattern}, but {len(tensors)} tensors"
        )
    return int(highest) + 1 if highest else 0


def _size(digits: str) -> tuple[int, str]:
    """What numbers are ordered by, of however many digits."""
    return len(digits), digits


def foreign_context(tensors: Tensors) -> int | None:
    """The width of what a U-Net attends to beside itself; None where it attends to itself alone."""
    for name, keys in tensors.items():
        own = tensors.get(name.replace(".attn2.to_k.", ".attn2.to_q."))
        if ".attn2.to_k." in name and own is not None and keys.shape[1:] != own.shape[1:]:
            return keys.shape[-1]
    return None


def _attends_to_context_alone(tensors: Tensors, prefix: str) -> bool:
    """Whether what is the self-attention of other transformers takes something of another width."""
    layer = f"{prefix}transformer_blocks.0.attn1."
    own, keys = tensors.get(f"{layer}to_q.weight"), tensors.get(f"{layer}to_k.weight")
    return own is not None and keys is not None and own.shape[1:] != keys.shape[1:]


def has(tensors: Tensors, prefix: str) -> bool:
    """Whether any name begins with `prefix`."""
    return any(name.startswith(prefix) for name in tensors)


def unet(tensors: Tensors, context_dim: int | None, latent_channels: int) -> cfg.UNet:
    """The U-Net, all heads taken for one; `tensors` by name without the component's prefix.

    `context_dim` is the width of what the model is conditioned on by cross-attention.

    Raises:
        ConvertError: it is not CompVis' U-Net, or one that this project does not have.
    """
    what = "the U-Net"
    for prefix, kind in (("label_emb.0.", "a vector condition, as SDXL has"),
                         ("input_blocks.0.1.", "attention before its first block")):  # fmt: skip
        if has(tensors, prefix):
            raise ConvertError(f"{what} has {kind} ({prefix}*), which is not supported")
    pattern = r"output_blocks\.(\d{1,9})\.[12]\.(conv|in_layers\.2)\.weight$"
    ups = [
        (int(match[1]), match[2]) for name in tensors if (match := re.match(pattern, name))
    ]  # fmt: skip
    outputs = _count(tensors, r"output_blocks\.(\d+)\.")
    per_level = min(n for n, _ in ups) + 1 if ups else outputs
    levels = outputs // per_level if per_level else 0
    if not levels or outputs % per_level or len(ups) != levels - 1:
        raise ConvertError(
            f"{what} has {outputs} output blocks, {len(ups)} of them with upsampling"
        )
    widths = tuple(
        _shape(tensors, f"input_blocks.{i * per_level + 1}.0.out_layers.3.weight", what)[0]
        for i in range(levels)
    )
    # The middle block always has attention.
    plain = "middle_block.1.qkv.weight" in tensors
    inputs = _shape(tensors, "input_blocks.0.0.weight", what)[1]
    time = _shape(tensors, "input_blocks.1.0.emb_layers.1.weight", what)[0]
    common: dict[str, Any] = {
        "in_channels": latent_channels,
        "out_channels": _shape(tensors, "out.2.weight", what)[0],
        "concat_channels": inputs - latent_channels,
        "block_out_channels": widths,
        "layers_per_block": per_level - 1,
        "attention": tuple(
            has(tensors, f"input_blocks.{i * per_level + 1}.1.") for i in range(levels)
        ),
        "num_heads": (1,) * levels,
        "time_scale_shift": time == 2 * widths[0],
        "resblock_updown": any(kind != "conv" for _, kind in ups),
        "norm_num_groups": _GROUPS,
    }
    if "label_emb.weight" in tensors:
        common["class_count"] = tensors["label_emb.weight"].shape[0]
    if plain:
        return cfg.UNet(**common, attention_kind="plain", context_dim=None)
    only = tuple(
        _attends_to_context_alone(tensors, f"input_blocks.{i * per_level + 1}.1.")
        for i in range(levels)
    )
    return cfg.UNet(
        **common,
        only_cross_attention=only if any(only) else (),
        transformer_layers=_count(tensors, r"middle_block\.1\.transformer_blocks\.(\d+)\."),
        use_linear_projection=len(_shape(tensors, "middle_block.1.proj_in.weight", what)) == 2,
        context_dim=context_dim,
    )


def autoencoder(tensors: Tensors) -> cfg.Autoencoder:
    """The first stage; `tensors` by name without the component's prefix.

    Raises:
        ConvertError: it is not CompVis' autoencoder.
    """
    what = "the first stage"
    levels = _count(tensors, r"encoder\.down\.(\d+)\.")
    attention = tuple(has(tensors, f"encoder.down.{i}.attn.") for i in range(levels))
    codebook = tensors.get("quantize.embedding.weight")
    latent = _shape(tensors, "decoder.conv_in.weight", what)[1]
    embedded = _shape(tensors, "post_quant_conv.weight", what)[1]
    if embedded != latent:
        raise ConvertError(
            f"{what} has latents of {embedded} channels and {latent} in the network; this project "
            "has the same number of both"
        )
    return cfg.Autoencoder(
        image_channels=_shape(tensors, "encoder.conv_in.weight", what)[1],
        latent_channels=latent,
        block_out_channels=tuple(
            _shape(tensors, f"encoder.down.{i}.block.0.conv2.weight", what)[0]
            for i in range(levels)
        ),
        layers_per_block=_count(tensors, r"encoder\.down\.0\.block\.(\d+)\."),
        norm_num_groups=_GROUPS,
        mid_attention=has(tensors, "encoder.mid.attn_1."),
        attention=attention if any(attention) else (),
        bottleneck=imported_model.codebook(None if codebook is None else codebook.shape[0]),
    )


def clip(tensors: Tensors) -> cfg.CLIPText:
    """CLIP's text encoder of SD 1; every published one has heads of 64 channels."""
    vocab, width = _shape(tensors, "text_model.embeddings.token_embedding.weight", "the text model")
    return cfg.CLIPText(
        vocab_size=vocab,
        max_length=_shape(
            tensors, "text_model.embeddings.position_embedding.weight", "the text model"
        )[0],
        width=width,
        layers=_count(tensors, r"text_model\.encoder\.layers\.(\d+)\."),
        num_heads=max(width // 64, 1),
        intermediate=_shape(
            tensors, "text_model.encoder.layers.0.mlp.fc1.weight", "the text model"
        )[0],
    )


def open_clip(tensors: Tensors) -> cfg.CLIPText:
    """OpenCLIP's text encoder of SD 2, whose last layer is not used."""
    what = "the text model"
    vocab, width = _shape(tensors, "token_embedding.weight", what)
    return cfg.CLIPText(
        vocab_size=vocab,
        max_length=_shape(tensors, "positional_embedding", what)[0],
        width=width,
        layers=_count(tensors, r"transformer\.resblocks\.(\d+)\.") - 1,
        num_heads=max(width // 64, 1),
        intermediate=_shape(tensors, "transformer.resblocks.0.mlp.c_fc.weight", what)[0],
        activation="gelu",
    )


def bert(tensors: Tensors) -> cfg.BERTText:
    """The text encoder of the 1.45B model; heads of 64 channels, as its code has it."""
    what = "the text model"
    vocab, width = _shape(tensors, "token_emb.weight", what)
    inner = _shape(tensors, "attn_layers.layers.0.1.to_q.weight", what)[0]
    length = _shape(tensors, "pos_emb.emb.weight", what)[0]
    return cfg.BERTText(
        vocab_size=vocab,
        max_length=length,
        width=width,
        layers=math.ceil(_count(tensors, r"attn_layers\.layers\.(\d+)\.") / 2),
        num_heads=max(inner // 64, 1),
        head_dim=min(inner, 64),
    )


PUBLISHED_LAYOUT = (8192, 92)
"""Tokens and positions of the published layout-to-image model."""


def is_published_layout(tensors: Tensors) -> bool:
    """Whether an encoder of the 1.45B model's kind is that of boxes, by its numbers of tokens."""
    vocab, positions = (tensors.get(f"{name}.weight") for name in ("token_emb", "pos_emb.emb"))
    return vocab is not None and positions is not None and (
        vocab.shape[0], positions.shape[0]
    ) == PUBLISHED_LAYOUT  # fmt: skip


def layout(tensors: Tensors) -> cfg.LayoutConditioner:
    """The encoder of boxes: one like that of the 1.45B model's text, over tokens of a layout.

    Raises:
        ConvertError: its tokens are none of a layout.
    """
    encoder = bert(tensors)
    if math.isqrt(encoder.vocab_size) ** 2 == encoder.vocab_size:
        raise ConvertError(
            f"its encoder of boxes has {encoder.vocab_size} tokens, a square, which leaves none "
            "for padding"
        )
    tokens = imported_model.layout_tokens(encoder.vocab_size, encoder.max_length)
    return cfg.LayoutConditioner(
        tokens, (), encoder.width, encoder.layers, encoder.num_heads, encoder.head_dim, dropout=0.0
    )


def class_map(tensors: Tensors) -> cfg.ClassMapConditioner:
    """The projection of a class map."""
    kernel = tensors["channel_mapper.weight"]
    if kernel.ndim != 4:
        raise ConvertError(f"channel_mapper.weight is no convolution, but {list(kernel.shape)}")
    return imported_model.class_map(kernel.shape[1], kernel.shape[0])
