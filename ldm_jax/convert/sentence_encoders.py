"""Sentence encoders that are a BERT, from a folder as transformers or sentence-transformers saves
it: `config.json`, the weights, and the tokenizer's files."""

from pathlib import Path
from typing import Any, Literal

from ldm_jax import config as cfg
from ldm_jax.convert import claims, imported_model, state_dicts
from ldm_jax.convert.diffusers.pipeline_folders import CONFIG, weights_file
from ldm_jax.convert.diffusers.text_encoders import OF_ANY_MODEL
from ldm_jax.convert.fields import Fields
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.core.stores import as_path
from ldm_jax.formats.model_files import read_sharded, read_tensors

MODEL_TYPE = "bert"
LENGTH = "sentence_bert_config.json"
POOLING = "1_Pooling/config.json"
"""What sentence-transformers writes beside a transformers folder."""
USUAL_LENGTH = 128
"""Tokens that captions are filled up and cut to where no file says it."""

_UNUSED = (
    (r".*position_ids", "the numbers 0, 1, 2, ..."),
    (r"(bert\.)?pooler\..*", "of the pretraining on pairs of sentences"),
    (r"cls\..*", "of the pretraining alone"),
)
_NAMES = {
    "word_embeddings.": "token_embedding.", "position_embeddings.": "position_embedding.",
    "token_type_embeddings.": "token_type_embedding.", "embeddings.LayerNorm.":
    "embeddings.layer_norm.", "encoder.layer.": "encoder.layers.",
    ".attention.self.query.": ".self_attn.q_proj.", ".attention.self.key.": ".self_attn.k_proj.",
    ".attention.self.value.": ".self_attn.v_proj.",
    ".attention.output.dense.": ".self_attn.out_proj.",
    ".attention.output.LayerNorm.": ".layer_norm1.", ".intermediate.dense.": ".mlp.fc1.",
    ".output.dense.": ".mlp.fc2.", ".output.LayerNorm.": ".layer_norm2.",
    # As the first BERTs were saved.
    ".gamma": ".weight", ".beta": ".bias",
}  # fmt: skip


def read_sentence_encoder(
    path: str | Path,
) -> tuple[cfg.TextConditioner, dict[str, Any], Path]:
    """The conditioner that the BERT in a folder makes, its float32 parameters, and the folder of
    its tokenizer.

    `sentence_bert_config.json` says how many tokens captions have, `1_Pooling/config.json` what is
    pooled, where there are such; else 128, and the mean.

    Raises:
        ConvertError, FileFormatError: names the file, and what in it is missing, damaged,
            unexpected or not supported.
    """
    path = as_path(path)
    fields = Fields.read(path / CONFIG)
    with fields.naming():
        encoder = _read_settings(fields, path)
    text = cfg.TextConditioner(encoder, tokenizer="bert")
    if not any((path / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise ConvertError(
            f"{path} has no tokenizer; put its files into the folder: vocab.txt, or tokenizer.json"
        )
    file, _ = weights_file(path, None)
    tensors = read_sharded(file) if file.suffix == ".json" else read_tensors(file)
    claims.check(text, tensors, str(path / CONFIG))
    shapes = imported_model.conditioner_shapes(text)
    params, _ = state_dicts.from_torch(tensors, shapes, str(file), _UNUSED, _of_bert)
    return text, imported_model.materialize(params), path


def _read_settings(fields: Fields, path: Path) -> cfg.SentenceBERT:
    layers = fields.whole("num_hidden_layers", 12)
    fields.choice("model_type", None, {MODEL_TYPE: True})
    fields.only(hidden_act="gelu", layer_norm_eps=1e-12, type_vocab_size=2, pad_token_id=0,
                position_embedding_type="absolute", is_decoder=False)  # fmt: skip
    # Dropout is of training; the rest is of what BERT was pretrained with.
    fields.ignore("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout",
                  "gradient_checkpointing", *OF_ANY_MODEL)  # fmt: skip
    positions = fields.whole("max_position_embeddings", 512)
    encoder = cfg.SentenceBERT(
        vocab_size=fields.whole("vocab_size", 30522),
        positions=positions,
        max_length=_length(path, positions),
        width=fields.whole("hidden_size", 768),
        layers=layers,
        num_heads=fields.whole("num_attention_heads", 12),
        intermediate=fields.whole("intermediate_size", 3072),
        pooling=_pooling(path),
    )
    fields.close()
    return encoder


def _length(path: Path, positions: int) -> int:
    usual = min(USUAL_LENGTH, positions)
    if not (path / LENGTH).is_file():
        return usual
    fields = Fields.read(path / LENGTH)
    found = fields.get("max_seq_length", None)
    fields.only(do_lower_case=False)
    fields.close()
    return usual if found is None else fields.whole("max_seq_length")


def _pooling(path: Path) -> Literal["mean", "first"]:
    if not (path / POOLING).is_file():
        return "mean"
    fields = Fields.read(path / POOLING)
    first = fields.flag("pooling_mode_cls_token", False)
    mean = fields.flag("pooling_mode_mean_tokens", True)
    if first == mean:
        raise fields.error("pooling_mode_mean_tokens", f"{not first}, as pooling_mode_cls_token is "
                           f"{first}: one of them pools")  # fmt: skip
    fields.ignore("word_embedding_dimension", "include_prompt")
    fields.close()
    return "first" if first else "mean"


def _of_bert(name: str) -> str:
    """Our name of what a file calls `name`."""
    name = name.removeprefix("bert.")
    for theirs, ours in _NAMES.items():
        name = name.replace(theirs, ours)
    return name
