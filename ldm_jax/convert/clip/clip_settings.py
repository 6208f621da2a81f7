"""CLIP's and DINOv2's settings as transformers describes them in JSON."""

from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.diffusers.text_encoders import OF_ANY_MODEL, read_clip_text
from ldm_jax.convert.fields import Fields
from ldm_jax.data.tokenizer import Tokenizer

Json = dict[str, Any]

_OLD_END = 2
"""What transformers wrote for the end token before 4.32: its place is then that of the largest."""
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu"}


def read_clip_settings(fields: Fields) -> cfg.CLIP:
    """The model that a `config.json` of a `CLIPModel` describes.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    fields.choice("model_type", None, {"clip": True})
    text, vision = (_part(fields, name) for name in ("text_config", "vision_config"))
    end = text.get("eos_token_id", 49407)
    config = cfg.CLIP(
        text=read_clip_text(text),
        vision=_vision(vision),
        embedding=fields.whole("projection_dim", 512),
        end_token=None if end == _OLD_END else end,
    )
    fields.ignore("logit_scale_init_value", *OF_ANY_MODEL)
    fields.close()
    return config


def _part(fields: Fields, name: str) -> Fields:
    """The settings of one encoder; in old files `NAME_dict` says again what differs from the
    usual."""
    found, again = (fields.get(key, None) or {} for key in (name, f"{name}_dict"))
    if not isinstance(found, dict) or not isinstance(again, dict):
        raise fields.error(name, "an object of settings")
    return Fields(fields.path, found | again)


def _vision(fields: Fields) -> cfg.CLIPVision:
    layers = fields.whole("num_hidden_layers", 12)
    fields.only(layer_norm_eps=1e-5, num_channels=3)
    fields.ignore("projection_dim", "attention_dropout", "dropout", *OF_ANY_MODEL)
    config = cfg.CLIPVision(
        image_size=fields.whole("image_size", 224),
        patch_size=fields.whole("patch_size", 32),
        width=fields.whole("hidden_size", 768),
        layers=layers,
        num_heads=fields.whole("num_attention_heads", 12),
        intermediate=fields.whole("intermediate_size", 3072),
        activation=fields.choice("hidden_act", "quick_gelu", _ACTIVATIONS),
    )
    fields.close()
    return config


def write_clip_settings(config: cfg.CLIP, tokenizer: Tokenizer) -> Json:
    """The `config.json` of a `CLIPModel` whose texts are read by `tokenizer`."""
    text, vision, end = config.text, config.vision, config.end_token
    shared = {"layer_norm_eps": 1e-5, "attention_dropout": 0.0, "projection_dim": config.embedding}
    return {
        "architectures": ["CLIPModel"], "model_type": "clip",
        "projection_dim": config.embedding, "logit_scale_init_value": 2.6592,
        "text_config": {
            "model_type": "clip_text_model", "vocab_size": text.vocab_size,
            "max_position_embeddings": text.max_length, "hidden_size": text.width,
            "intermediate_size": text.intermediate, "num_hidden_layers": text.layers,
            "num_attention_heads": text.num_heads, "hidden_act": text.activation,
            "bos_token_id": tokenizer.start_id, "eos_token_id": _OLD_END if end is None else end,
            "pad_token_id": tokenizer.pad_id, **shared,
        },
        "vision_config": {
            "model_type": "clip_vision_model", "image_size": vision.image_size,
            "patch_size": vision.patch_size, "num_channels": 3, "hidden_size": vision.width,
            "intermediate_size": vision.intermediate, "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.num_heads, "hidden_act": vision.activation, **shared,
        },
    }  # fmt: skip


def read_dinov2_settings(fields: Fields) -> cfg.DINOv2:
    """The model that a `config.json` of a `Dinov2Model` describes.

    Raises:
        ConvertError: names the field whose value is not supported, such as the gated MLP of the
            largest.
    """
    fields.choice("model_type", None, {"dinov2": True})
    fields.only(
        layer_norm_eps=1e-6, num_channels=3, hidden_act="gelu", qkv_bias=True, use_swiglu_ffn=False
    )
    # What is trained with, and what its backbone gives besides the class token.
    fields.ignore("hidden_dropout_prob", "attention_probs_dropout_prob", "layerscale_value",
                  "drop_path_rate", "use_mask_token", "apply_layernorm", "reshape_hidden_states",
                  "out_features", "out_indices", "stage_names", *OF_ANY_MODEL)  # fmt: skip
    width = fields.whole("hidden_size", 768)
    config = cfg.DINOv2(
        image_size=fields.whole("image_size", 224),
        patch_size=fields.whole("patch_size", 14),
        width=width,
        layers=fields.whole("num_hidden_layers", 12),
        num_heads=fields.whole("num_attention_heads", 12),
        intermediate=width * fields.whole("mlp_ratio", 4),
    )
    fields.close()
    return config
