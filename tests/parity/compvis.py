"""Configs, parameter names and layouts of the original checkpoints, for comparing with them."""

import re

import numpy as np
import originals
import weights

from ldm_jax import config as cfg

UNET_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
BERT_LAYER = {
    "self_attn_layer_norm": "{0}.0", "self_attn.q_proj": "{0}.1.to_q",
    "self_attn.k_proj": "{0}.1.to_k", "self_attn.v_proj": "{0}.1.to_v",
    "self_attn.out_proj": "{0}.1.to_out", "final_layer_norm": "{1}.0", "fc1": "{1}.1.net.0.0",
    "fc2": "{1}.1.net.2",
}  # fmt: skip
OPENCLIP_LAYER = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def unet_config(name: str) -> cfg.UNet:
    """Our config of the U-Net of `originals.MODELS`."""
    given = originals.MODELS[name]["unet"]
    widths = tuple(given["model_channels"] * n for n in given["channel_mult"])
    heads = tuple(
        width // given["num_head_channels"] if "num_head_channels" in given else given["num_heads"]
        for width in widths
    )
    transformer = given.get("use_spatial_transformer", False)
    return cfg.UNet(
        in_channels=given["out_channels"], out_channels=given["out_channels"],
        concat_channels=given["in_channels"] - given["out_channels"], block_out_channels=widths,
        layers_per_block=given["num_res_blocks"], num_heads=heads,
        attention=tuple(2**i in given["attention_resolutions"] for i in range(len(widths))),
        attention_kind="transformer" if transformer else "plain",
        use_linear_projection=given.get("use_linear_in_transformer", False),
        context_dim=given.get("context_dim"), resblock_updown=given.get("resblock_updown", False),
        time_scale_shift=given.get("use_scale_shift_norm", False),
    )  # fmt: skip


def autoencoder_config(name: str) -> cfg.Autoencoder:
    """Our config of one of `originals.FIRST_STAGES`."""
    given, dd = originals.FIRST_STAGES[name], originals.FIRST_STAGES[name]["ddconfig"]
    levels = range(len(dd["ch_mult"]))
    return cfg.Autoencoder(
        latent_channels=given["embed_dim"], layers_per_block=dd["num_res_blocks"],
        block_out_channels=tuple(dd["ch"] * n for n in dd["ch_mult"]),
        mid_attention=dd.get("attn_type") != "none",
        bottleneck=cfg.VQ(given["n_embed"]) if "n_embed" in given else cfg.KL(),
        attention=tuple(dd["resolution"] // 2**i in dd["attn_resolutions"] for i in levels),
    )  # fmt: skip


def unet_name(config: cfg.UNet, name: str) -> str:
    """The original name of a part of the U-Net, after model.diffusion_model."""
    per_level = config.layers_per_block + 1
    attention = config.attention[::-1]

    def block(match: re.Match) -> str:
        side, i, kind, j, rest = match.groups()
        at = per_level * int(i) + int(j)
        if kind == "downsamplers":
            return f"input_blocks.{per_level * (int(i) + 1)}.0.{'op' if rest == 'conv' else rest}"
        if kind == "upsamplers":
            at += config.layers_per_block
            return f"output_blocks.{at}.{2 if attention[int(i)] else 1}.{rest}"
        side = f"input_blocks.{at + 1}" if side == "down" else f"output_blocks.{at}"
        return f"{side}.{'0' if kind == 'resnets' else '1'}.{rest}"

    name = re.sub(r"^(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)$", block, name)
    name = re.sub(r"^mid_block\.resnets\.(\d)", lambda m: f"middle_block.{2 * int(m[1])}", name)
    name = name.replace("mid_block.attentions.0", "middle_block.1")
    if "transformer_blocks" not in name:
        name = _replace_last(name, UNET_RESNET | ATTENTION)
    outer = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
             "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             }  # fmt: skip
    return outer.get(name, name)


def autoencoder_name(config: cfg.Autoencoder, name: str) -> str:
    """The original name of a part of the autoencoder."""
    last = len(config.block_out_channels) - 1
    name = re.sub(r"up_blocks\.(\d+)", lambda m: f"up.{last - int(m[1])}", name)
    name = name.replace("down_blocks", "down").replace("mid_block", "mid")
    name = re.sub(r"mid\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    name = name.replace("mid.attentions.0", "mid.attn_1").replace("attentions", "attn")
    name = name.replace("resnets", "block").replace("samplers.0", "sample")
    name = name.replace("conv_norm_out", "norm_out")
    return _replace_last(name, ATTENTION | {"conv_shortcut": "nin_shortcut"})


def bert_name(name: str) -> str:
    """The original name of a part of the BERT encoder."""

    def layer(match: re.Match) -> str:
        i = int(match[1])
        return "attn_layers.layers." + BERT_LAYER[match[2]].format(2 * i, 2 * i + 1)

    name = re.sub(r"^model\.layers\.(\d+)\.(.+)$", layer, name)
    outer = {"model.embed_tokens": "token_emb", "model.embed_positions": "pos_emb.emb",
             "model.layer_norm": "norm"}  # fmt: skip
    return outer.get(name, name)


def openclip_name(name: str) -> str:
    """The original name of a part of OpenCLIP's text tower."""
    name = name.removeprefix("text_model.").replace("encoder.layers", "transformer.resblocks")
    name = name.replace("final_layer_norm", "ln_final").removeprefix("embeddings.")
    name = name.replace("position_embedding", "positional_embedding")
    return _replace_last(name, OPENCLIP_LAYER)


def _replace_last(name: str, table: dict[str, str]) -> str:
    for ours, theirs in table.items():
        if name == ours or name.endswith("." + ours):
            return name.removesuffix(ours) + theirs
    return name


def parameter(name: str, last: str, shape: tuple[int, ...], heads: dict[int, int]) -> np.ndarray:
    """The seeded weights of the original part `name` in our layout.

    `last` is the parameter's last level here; `heads` says how many there are at each width.
    """
    suffix = "bias" if last == "bias" else "weight"
    if match := re.search(r"(?<=\.)[qkv]$", name) if "diffusion_model" in name else None:
        # One matrix for the three; each head has its q, k and v beside each other.
        width, whole = shape[-1], (3 * shape[-1], *shape[:-1])
        fused = weights.weight(f"{name[:-1]}qkv.{suffix}", whole)
        fused = fused.reshape(heads[width], 3, -1, *shape[:-1])
        return fused[:, "qkv".index(match[0])].reshape(shape[::-1]).T
    if match := re.search(r"self_attn\.([qkv])_proj$", name) if "resblocks" in name else None:
        whole = (3 * shape[-1], *shape[:-1])
        fused = weights.weight(f"{name[: match.start()]}attn.in_proj_{suffix}", whole)
        return np.split(fused, 3)["qkv".index(match[1])].T
    if not name.endswith("positional_embedding"):
        name = f"{name}.{suffix}"
    if last != "kernel":
        return weights.weight(name, shape)
    if len(shape) == 4:
        return weights.weight(name, (*shape[:1:-1], *shape[:2])).transpose(2, 3, 1, 0)
    # Where the original has a 1x1 convolution, its further axes of one change no number.
    return weights.weight(name, shape[::-1]).T
