"""A folder of a small sentence encoder, as sentence-transformers saves it, with random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ldm_jax.formats.safetensors_file import write_safetensors

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONFIG = {
    "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "vocab_size": 64,
    "max_position_embeddings": 24, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 2, "intermediate_size": 24, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "pad_token_id": 0, "position_embedding_type": "absolute",
    "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02,
    "classifier_dropout": None, "use_cache": True, "transformers_version": "4.8.2",
    "gradient_checkpointing": False,
}  # fmt: skip


def write(folder: Path, words: list[str], **changes: Any) -> Path:
    """With `words` as whole tokens, and `changes` in its config."""
    (folder / "1_Pooling").mkdir(parents=True)
    config = CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "vocab.txt").write_text("\n".join([*SPECIAL, *words]) + "\n", encoding="utf-8")
    length = {"max_seq_length": 16, "do_lower_case": False}
    (folder / "sentence_bert_config.json").write_text(json.dumps(length))
    pooling = {"word_embedding_dimension": config["hidden_size"], "pooling_mode_cls_token": False,
               "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}  # fmt: skip
    (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    write_safetensors(folder / "model.safetensors", tensors(config), {"format": "pt"})
    return folder


def tensors(config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Random ones of each name and shape that transformers' `BertModel` has."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    rows = {
        "word": config["vocab_size"], "position": config["max_position_embeddings"],
        "token_type": config["type_vocab_size"],
    }  # fmt: skip
    shapes = {f"embeddings.{name}_embeddings.weight": (n, width) for name, n in rows.items()}

    def norm(name: str) -> dict[str, tuple[int, ...]]:
        return {f"{name}.LayerNorm.{part}": (width,) for part in ("weight", "bias")}

    def dense(name: str, out: int, into: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    shapes |= norm("embeddings") | dense("pooler.dense", width, width)
    for number in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{number}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= dense(f"{layer}.attention.{name}", width, width)
        shapes |= norm(f"{layer}.attention.output") | norm(f"{layer}.output")
        shapes |= dense(f"{layer}.intermediate.dense", inner, width)
        shapes |= dense(f"{layer}.output.dense", width, inner)
    random = np.random.default_rng(0)
    return {
        name: (0.3 * random.standard_normal(shape) + ("LayerNorm.weight" in name)).astype("f4")
        for name, shape in shapes.items()
    }
