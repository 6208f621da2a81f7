"""Architectures as diffusers and transformers describe them in JSON, to and from ours."""

from dataclasses import replace
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert import imported_model, recognition
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.obstacles import differing

Json = dict[str, Any]

OTHERS = "diffusers' models"
"""In sentences about what they do not have."""

_CROSS = "CrossAttn{}Block2D"
_PLAIN = "Attn{}Block2D"
_NONE = "{}Block2D"
_RESNET = {"Down": "ResnetDownsampleBlock2D", "Up": "ResnetUpsampleBlock2D"}
_SHIFT = {"default": False, "scale_shift": True}
_SILU = {"silu": None, "swish": None}
"""Two names of one function."""
# What diffusers' EMAModel writes into the config of the averages that it saves.
_OF_AVERAGES = (
    "decay", "min_decay", "update_after_step", "use_ema_warmup", "inv_gamma", "power",
    "optimization_step",
)  # fmt: skip


def read_unet(fields: Fields) -> cfg.UNet:
    """The U-Net of a `UNet2DConditionModel` or `UNet2DModel`, all inputs counted as latents.

    `in_channels` is the file's: the caller, who knows the latents, divides it.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    conditional = fields.choice(
        "_class_name", None, {"UNet2DConditionModel": True, "UNet2DModel": False}
    )
    widths = fields.wholes("block_out_channels", (320, 640, 1280, 1280))
    count = len(widths)
    kind = _CROSS if conditional else _PLAIN
    words = (kind, _NONE, None)
    down = _levels(fields, "down_block_types", "Down", words, count)
    up = _levels(fields, "up_block_types", "Up", words, count)[::-1]
    attention = tuple(found == "attention" for found in down)
    if attention != tuple(found == "attention" for found in up):
        raise fields.error("up_block_types", "with attention where down_block_types have it")
    common: Json = {
        "in_channels": fields.whole("in_channels"),
        "out_channels": fields.whole("out_channels"),
        "block_out_channels": widths,
        "layers_per_block": _same(fields, "layers_per_block", 2, count),
        "attention": attention,
        "class_count": _optional(fields, "num_class_embeds"),
        "time_scale_shift": fields.choice("resnet_time_scale_shift", "default", _SHIFT),
        "norm_num_groups": fields.whole("norm_num_groups", 32),
        "dropout": fields.number("dropout", 0.0),
    }
    fields.only(
        center_input_sample=False, flip_sin_to_cos=True, freq_shift=0, downsample_padding=1,
        mid_block_scale_factor=1, norm_eps=1e-5, class_embed_type=None,
        time_embedding_type="positional", time_embedding_dim=None,
    )  # fmt: skip
    fields.choice("act_fn", "silu", _SILU)
    fields.ignore("sample_size", "num_train_timesteps", *_OF_AVERAGES)
    if conditional:
        return _conditional(fields, common)
    # The coarsest level is not halved, and the finest not doubled.
    return _unconditional(fields, common, {*down[:-1], *up[1:]} - {"attention"})


def _conditional(fields: Fields, common: Json) -> cfg.UNet:
    count = len(common["block_out_channels"])
    fields.only(
        count, mid_block_type="UNetMidBlock2DCrossAttn",
        reverse_transformer_layers_per_block=None, encoder_hid_dim=None,
        encoder_hid_dim_type=None, num_attention_heads=None, dual_cross_attention=False,
        addition_embed_type=None, addition_time_embed_dim=None, resnet_skip_time_act=False,
        resnet_out_scale_factor=1.0, time_embedding_act_fn=None, timestep_post_act=None,
        time_cond_proj_dim=None, conv_in_kernel=3, conv_out_kernel=3,
        projection_class_embeddings_input_dim=None, attention_type="default",
        class_embeddings_concat=False, cross_attention_norm=None,
    )  # fmt: skip
    # The first is about float16, where attention's softmax is in float32 here anyway; the second
    # belongs to an addition_embed_type.
    fields.ignore("upcast_attention", "addition_embed_type_num_heads")
    heads = _used_heads(common, fields.each("attention_head_dim", 8, count))
    transformer_layers = _same(fields, "transformer_layers_per_block", 1, count)
    context = _same(fields, "cross_attention_dim", 1280, count)
    linear = fields.flag("use_linear_projection", False)
    only_cross = _only_cross(fields, common["attention"])
    fields.close()
    return cfg.UNet(
        **common, num_heads=heads, transformer_layers=transformer_layers, context_dim=context,
        use_linear_projection=linear, only_cross_attention=only_cross,
    )  # fmt: skip


def _only_cross(fields: Fields, attention: tuple[bool, ...]) -> tuple[bool, ...]:
    """Levels on which both attentions attend to the context, of those with attention."""
    found = fields.get("only_cross_attention", False)
    each = found if isinstance(found, list) else [found] * len(attention)
    if len(each) != len(attention) or not all(type(one) is bool for one in each):
        raise fields.error(
            "only_cross_attention", f"true, false or a list of {len(attention)} of them"
        )
    # Where nothing is said of it, one `true` for all levels is for the middle block too.
    middle = fields.get("mid_block_only_cross_attention", None)
    if middle is None:
        middle = found if isinstance(found, bool) else False
    if middle is not False:
        raise fields.error("mid_block_only_cross_attention", "false beside only_cross_attention")
    only = tuple(one and has for one, has in zip(each, attention, strict=True))
    return only if any(only) else ()


def _unconditional(fields: Fields, common: Json, changes: set[str]) -> cfg.UNet:
    """`changes` are the kinds of the levels without attention, whose type names their kind."""
    widths = common["block_out_channels"]
    fields.only(mid_block_type="UNetMidBlock2D", add_attention=True)
    # diffusers leaves the norm of the middle attention out beside FiLM, unless this is said.
    groups = common["norm_num_groups"]
    allowed = (groups,) if common["time_scale_shift"] else (None, groups)
    if fields.get("attn_norm_num_groups", None) not in allowed:
        raise fields.error("attn_norm_num_groups", f"norm_num_groups, {groups}")
    samplers = {"conv": False, "resnet": True}
    change = fields.choice("downsample_type", "conv", samplers)
    if fields.choice("upsample_type", "conv", samplers) != change:
        raise fields.error("upsample_type", "the same as downsample_type")
    if changes - {"resnet" if change else "none"}:
        raise fields.error("down_block_types", "of the kind that downsample_type names, as "
                           "up_block_types, on the levels without attention")  # fmt: skip
    channels = fields.get("attention_head_dim", 8)
    used = [width for width, has in zip(widths, _attends(common), strict=True) if has]
    if channels is None:
        heads = (1,) * len(widths)
    elif type(channels) is int and channels > 0 and all(w % channels == 0 for w in used):
        heads = _used_heads(common, tuple(max(width // channels, 1) for width in widths))
    else:
        raise fields.error("attention_head_dim", f"null or a divisor of the widths {used}")
    fields.close()
    return cfg.UNet(
        **common, num_heads=heads, attention_kind="plain", context_dim=None, resblock_updown=change
    )


def _attends(common: Json) -> tuple[bool, ...]:
    """Which levels have heads: those with attention, and the coarsest, in the middle block."""
    return (*common["attention"][:-1], True)


def _used_heads(common: Json, heads: tuple[int, ...]) -> tuple[int, ...]:
    """`heads`, and 1 on levels without attention whose width they do not divide."""
    widths = common["block_out_channels"]
    return tuple(
        n if attends or width % n == 0 else 1
        for n, width, attends in zip(heads, widths, _attends(common), strict=True)
    )


def _levels(
    fields: Fields, name: str, way: str, words: tuple[str | None, ...], count: int
) -> list[str]:
    """`attention`, `none` or `resnet` of each level of a list of block types."""
    kind, none, _ = words
    meanings = {kind.format(way): "attention", none.format(way): "none"}
    if kind == _PLAIN:
        meanings[_RESNET[way]] = "resnet"
    found = fields.texts(name, (), meanings)
    if len(found) != count:
        raise fields.error(name, f"a list of {count}, one for each of block_out_channels")
    return [meanings[word] for word in found]


def _optional(fields: Fields, name: str) -> int | None:
    return None if fields.get(name, None) is None else fields.whole(name)


def _same(fields: Fields, name: str, default: int, count: int) -> int:
    values = fields.each(name, default, count)
    if len(set(values)) > 1:
        raise fields.error(name, "the same for all levels")
    return values[0]


def write_unet(config: cfg.UNet, sample_size: int | tuple[int, int]) -> Json:
    """The `config.json` of a U-Net without `unet_obstacles`; `sample_size` is that of the latents
    it was trained on."""
    levels = len(config.block_out_channels)
    common: Json = {
        "sample_size": list(sample_size) if isinstance(sample_size, tuple) else sample_size,
        "in_channels": config.in_channels + config.concat_channels,
        "out_channels": config.out_channels,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "num_class_embeds": config.class_count,
        "resnet_time_scale_shift": "scale_shift" if config.time_scale_shift else "default",
        "norm_num_groups": config.norm_num_groups,
        "norm_eps": 1e-5, "act_fn": "silu", "center_input_sample": False, "freq_shift": 0,
        "flip_sin_to_cos": True, "downsample_padding": 1, "mid_block_scale_factor": 1,
        "dropout": config.dropout,
    }  # fmt: skip

    def types(way: str, kind: str) -> list[str]:
        # The coarsest level is not halved, and the finest not doubled.
        last = levels - 1 if way == "Down" else 0
        words = [
            kind.format(way) if attention
            else _RESNET[way] if config.resblock_updown and level != last
            else _NONE.format(way)
            for level, attention in enumerate(config.attention)
        ]  # fmt: skip
        return words if way == "Down" else words[::-1]

    if config.attention_kind == "transformer":
        return common | {
            "_class_name": "UNet2DConditionModel",
            "down_block_types": types("Down", _CROSS), "up_block_types": types("Up", _CROSS),
            "mid_block_type": "UNetMidBlock2DCrossAttn",
            "attention_head_dim": list(config.num_heads),
            "transformer_layers_per_block": config.transformer_layers,
            "cross_attention_dim": config.context_dim,
            "use_linear_projection": config.use_linear_projection,
            "only_cross_attention": list(config.only_cross_attention) or False,
        }  # fmt: skip
    return common | {
        "_class_name": "UNet2DModel",
        "down_block_types": types("Down", _PLAIN), "up_block_types": types("Up", _PLAIN),
        "attention_head_dim": _channels_of_heads(config), "add_attention": True,
        "downsample_type": "resnet" if config.resblock_updown else "conv",
        "upsample_type": "resnet" if config.resblock_updown else "conv",
        "attn_norm_num_groups": config.norm_num_groups,
    }  # fmt: skip


def unet_obstacles(config: cfg.UNet) -> list[str]:
    """What of a U-Net diffusers has nothing for."""
    transformer = config.attention_kind == "transformer"
    others = [
        ("unet.patch_size", config.patch_size, 1), ("unet.pooled_dim", config.pooled_dim, None),
        ("unet.resblock_updown", config.resblock_updown and transformer, False),
    ]  # fmt: skip
    found = differing(OTHERS, others)
    if transformer and config.context_dim is None:
        found.append("unet.context_dim is None, which diffusers' U-Net cannot be")
    if not transformer and len(_head_widths(config)) > 1 and set(config.num_heads) != {1}:
        found.append(
            f"unet.num_heads {config.num_heads} of the widths {config.block_out_channels} are "
            "heads of different widths, which diffusers' unconditional U-Net does not have"
        )
    return found


def _channels_of_heads(config: cfg.UNet) -> int | None:
    """diffusers' unconditional U-Net has heads of the same width on all levels, or one head."""
    used = _head_widths(config)
    return used.pop() if len(used) == 1 else None


def _head_widths(config: cfg.UNet) -> set[int]:
    """Channels of the heads of all levels that have heads: those with attention, and the coarsest,
    in the middle block."""
    attends = _attends({"attention": config.attention})
    levels = zip(config.block_out_channels, config.num_heads, attends, strict=True)
    return {width // heads for width, heads, has in levels if has}


def _channels_normalized(fields: Fields, channels: int) -> Json:
    """Mean and deviation of latents: as (z - latents_mean) / latents_std * scaling_factor in SDXL's
    pipelines, or as (z - shift_factor) * scaling_factor in SD 3's."""
    shift = 0.0 if fields.get("shift_factor", None) is None else fields.number("shift_factor")
    names = ("latents_mean", "latents_std")
    given = [name for name in names if fields.get(name, None) is not None]
    if len(given) == 1:
        raise fields.error(given[0], "null, or beside the other of latents_mean and latents_std")
    if given and shift:
        raise fields.error("shift_factor", "null beside latents_mean and latents_std")
    if given:
        mean, std = (fields.numbers(name, channels) for name in names)
        return {"latent_mean": mean, "latent_std": std}
    return {"latent_mean": (shift,) * channels, "latent_std": (1.0,) * channels} if shift else {}


_ENCODE = {True: "AttnDownEncoderBlock2D", False: "DownEncoderBlock2D"}
_DECODE = {True: "AttnUpDecoderBlock2D", False: "UpDecoderBlock2D"}


def read_autoencoder(fields: Fields, scale: float | None = None) -> cfg.Autoencoder:
    """The first stage of an `AutoencoderKL` or `VQModel`; `scale` is what its latents are
    multiplied by whatever the file says.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    quantized = fields.choice("_class_name", None, {"AutoencoderKL": False, "VQModel": True})
    widths = fields.wholes("block_out_channels", (64,))
    down = fields.texts("down_block_types", ("DownEncoderBlock2D",), _ENCODE.values())
    up = fields.texts("up_block_types", ("UpDecoderBlock2D",), _DECODE.values())
    attention = tuple(word == _ENCODE[True] for word in down)
    if len(down) != len(widths) or len(up) != len(widths):
        raise fields.error("down_block_types", "one for each of block_out_channels, as up's")
    if tuple(word == _DECODE[True] for word in up[::-1]) != attention:
        raise fields.error("up_block_types", "with attention where down_block_types have it")
    channels = fields.whole("in_channels", 3)
    if fields.whole("out_channels", 3) != channels:
        raise fields.error("out_channels", f"{channels}, as in_channels")
    fields.choice("act_fn", "silu", _SILU)
    # The first is what it was trained on, the second about float16, where it is float32 here.
    fields.ignore("sample_size", "force_upcast")
    latent = fields.whole("latent_channels", 3 if quantized else 4)
    codebook = None
    if quantized:
        codebook = fields.whole("num_vq_embeddings", 256)
        if fields.get("vq_embed_dim", None) not in (None, latent):
            raise fields.error("vq_embed_dim", f"null or latent_channels, {latent}")
        fields.only(norm_type="group", lookup_from_codebook=False)
    else:
        fields.only(use_quant_conv=True, use_post_quant_conv=True)
    config = cfg.Autoencoder(
        image_channels=channels,
        latent_channels=latent,
        block_out_channels=widths,
        layers_per_block=fields.whole("layers_per_block", 1),
        norm_num_groups=fields.whole("norm_num_groups", 32),
        mid_attention=fields.flag("mid_block_add_attention", True),
        attention=attention if any(attention) else (),
        bottleneck=imported_model.codebook(codebook),
        latent_scale=scale or fields.number("scaling_factor", 0.18215),
        **({} if quantized else _channels_normalized(fields, latent)),
    )
    fields.ignore("scaling_factor")
    fields.close()
    if quantized and scale is None and "scaling_factor" not in fields:
        # diffusers would take 0.18215, which the published models, without the field, never had.
        if recognition.first_stage(config) is None:
            raise ConvertError(
                f"{fields.path} has no scaling_factor, and is none of the published VQ models, "
                'which have 1: add "scaling_factor": 1.0, or what it was trained with'
            )
        config = replace(config, latent_scale=1.0)
    return config


def write_autoencoder(config: cfg.Autoencoder, scale: float, side: int) -> Json:
    """The `config.json` of a first stage without obstacles, for images of `side` pixels."""
    attention = config.attention or (False,) * len(config.block_out_channels)
    common: Json = {
        "in_channels": config.image_channels, "out_channels": config.image_channels,
        "down_block_types": [_ENCODE[a] for a in attention],
        "up_block_types": [_DECODE[a] for a in attention[::-1]],
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block, "act_fn": "silu",
        "latent_channels": config.latent_channels, "norm_num_groups": config.norm_num_groups,
        "sample_size": side, "scaling_factor": scale,
        "mid_block_add_attention": config.mid_attention,
    }  # fmt: skip
    if isinstance(config.bottleneck, cfg.KL):
        return {"_class_name": "AutoencoderKL"} | common
    return {
        "_class_name": "VQModel", "num_vq_embeddings": config.bottleneck.size,
        "vq_embed_dim": config.latent_channels, "norm_type": "group",
    } | common  # fmt: skip
