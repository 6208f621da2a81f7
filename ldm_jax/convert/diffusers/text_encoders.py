"""Text encoders as transformers and diffusers describe them in JSON."""

import json
from typing import Any

from ldm_jax import config as cfg
from ldm_jax.convert.fields import Fields

Json = dict[str, Any]

OF_ANY_MODEL = (
    "transformers_version", "architectures", "model_type", "torch_dtype", "dtype", "return_dict",
    "chunk_size_feed_forward", "id2label", "label2id", "problem_type", "output_hidden_states",
    "output_attentions", "is_encoder_decoder", "initializer_range", "initializer_factor",
    "pad_token_id", "bos_token_id", "eos_token_id", "use_cache", "num_hidden_layers", "init_std",
    # Of generating text, which nobody does with these; transformers 4 wrote them all.
    "max_length", "min_length", "num_beams", "num_beam_groups", "temperature", "top_k", "top_p",
    "typical_p", "repetition_penalty", "length_penalty", "diversity_penalty",
    "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "num_return_sequences", "pruned_heads",
    "tie_word_embeddings", "use_bfloat16", "return_dict_in_generate", "early_stopping",
    "exponential_decay_length_penalty",
)  # fmt: skip
"""What transformers writes into every config and that changes nothing of a forward pass."""


def read_text_encoder(fields: Fields) -> cfg.TextConditioner:
    """The conditioner that a CLIP or LDM-BERT text encoder makes.

    Raises:
        ConvertError: names the field whose value is not supported.
    """
    if fields.choice("model_type", None, {"clip_text_model": True, "ldmbert": False}):
        return cfg.TextConditioner(read_clip_text(fields), tokenizer="clip")
    return cfg.TextConditioner(_bert(fields), tokenizer="bert")


def read_clip_text(fields: Fields) -> cfg.CLIPText:
    """CLIP's text encoder; raises ConvertError, which names the field that is not supported."""
    layers = fields.whole("num_hidden_layers", 12)
    fields.only(layer_norm_eps=1e-5)
    # Dropout is of training; the projection belongs to the comparison with pictures.
    fields.ignore("projection_dim", "attention_dropout", "dropout", *OF_ANY_MODEL)
    config = cfg.CLIPText(
        vocab_size=fields.whole("vocab_size", 49408),
        max_length=fields.whole("max_position_embeddings", 77),
        width=fields.whole("hidden_size", 512),
        layers=layers,
        num_heads=fields.whole("num_attention_heads", 8),
        intermediate=fields.whole("intermediate_size", 2048),
        activation=fields.choice(
            "hidden_act", "quick_gelu", {"quick_gelu": "quick_gelu", "gelu": "gelu"}
        ),
    )
    fields.close()
    return config


def _bert(fields: Fields) -> cfg.BERTText:
    width = fields.whole("d_model", 1280)
    layers = fields.whole("encoder_layers", 32)
    if fields.whole("encoder_ffn_dim", 5120) != 4 * width:
        raise fields.error("encoder_ffn_dim", f"{4 * width}, four times d_model")
    fields.only(activation_function="gelu", scale_embedding=False)
    fields.ignore("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop",
                  "classifier_dropout", *OF_ANY_MODEL)  # fmt: skip
    config = cfg.BERTText(
        vocab_size=fields.whole("vocab_size", 30522),
        max_length=fields.whole("max_position_embeddings", 77),
        width=width,
        layers=layers,
        num_heads=fields.whole("encoder_attention_heads", 8),
        head_dim=fields.whole("head_dim", 64),
    )
    fields.close()
    return config


def write_text_encoder(encoder: cfg.CLIPText | cfg.BERTText) -> Json:
    """The `config.json` of a text encoder that has no `encoder_obstacles`."""
    if isinstance(encoder, cfg.CLIPText):
        return {
            "architectures": ["CLIPTextModel"], "model_type": "clip_text_model",
            "vocab_size": encoder.vocab_size, "max_position_embeddings": encoder.max_length,
            "hidden_size": encoder.width, "intermediate_size": encoder.intermediate,
            "num_hidden_layers": encoder.layers - encoder.skip_last,
            "num_attention_heads": encoder.num_heads, "hidden_act": encoder.activation,
            "layer_norm_eps": 1e-5, "attention_dropout": 0.0, "projection_dim": encoder.width,
            "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
        }  # fmt: skip
    return {
        "architectures": ["LDMBertModel"], "model_type": "ldmbert",
        "vocab_size": encoder.vocab_size, "max_position_embeddings": encoder.max_length,
        "d_model": encoder.width, "encoder_ffn_dim": 4 * encoder.width,
        "encoder_layers": encoder.layers, "encoder_attention_heads": encoder.num_heads,
        "head_dim": encoder.head_dim, "activation_function": "gelu",
        "scale_embedding": False, "pad_token_id": 0,
    }  # fmt: skip


def encoder_obstacles(encoder: Any) -> list[str]:
    """Why diffusers and transformers have no such text encoder; [] where they have."""
    if isinstance(encoder, cfg.CLIPText | cfg.BERTText):
        return []
    return [f"the text encoder is a {type(encoder).__name__}, which diffusers does not have"]


def as_text(value: Json) -> bytes:
    """A JSON file as diffusers writes it."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()
