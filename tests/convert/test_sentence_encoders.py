"""Folders of sentence encoders: what is read of them, and what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import sentence_files

from ldm_jax import config as cfg
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.loading import load, read_text_encoder
from ldm_jax.convert.parts import text_encoder_params
from ldm_jax.formats.safetensors_file import write_safetensors

ENCODER = cfg.SentenceBERT(
    vocab_size=64, positions=24, max_length=16, width=16, layers=2, num_heads=2, intermediate=24
)
WORDS = ["a", "red", "three"]


@pytest.fixture
def folder(tmp_path):
    return sentence_files.write(tmp_path / "bert", WORDS)


def change(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_weights_length_pooling_and_tokenizer_are_read(folder):
    text, params, tokenizer = read_text_encoder(folder, "--text_encoder")
    assert text == cfg.TextConditioner(ENCODER, tokenizer="bert") and tokenizer == folder
    tensors = sentence_files.tensors(sentence_files.CONFIG)
    np.testing.assert_array_equal(
        params["encoder"]["layers"]["1"]["self_attn"]["q_proj"]["kernel"],
        tensors["encoder.layer.1.attention.self.query.weight"].T,
    )
    change(folder / "1_Pooling/config.json", pooling_mode_cls_token=True,
           pooling_mode_mean_tokens=False)  # fmt: skip
    (folder / "sentence_bert_config.json").unlink()
    read = read_text_encoder(folder, "--text_encoder")[0].encoder
    assert read == dataclasses.replace(ENCODER, max_length=24, pooling="first")


def test_old_names_and_what_is_of_the_pretraining(folder):
    tensors = {
        "bert." + name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in sentence_files.tensors(sentence_files.CONFIG).items()
    }  # fmt: skip
    expected = read_text_encoder(folder, "")[1]
    tensors |= {"cls.predictions.bias": np.zeros(64, np.float32)}
    write_safetensors(folder / "model.safetensors", tensors, {"format": "pt"})
    found = read_text_encoder(folder, "")[1]
    np.testing.assert_array_equal(
        found["embeddings"]["layer_norm"]["scale"], expected["embeddings"]["layer_norm"]["scale"]
    )


def test_a_run_may_take_another_length_and_pooling(folder):
    shorter = dataclasses.replace(ENCODER, max_length=8, pooling="first")
    text = cfg.TextConditioner(shorter, tokenizer="bert", dropout=0.5)
    assert text_encoder_params(folder, text).config == text
    other = dataclasses.replace(text, encoder=dataclasses.replace(shorter, num_heads=4))
    with pytest.raises(cfg.ConfigError, match="encoder.num_heads is 2 there, 4 here"):
        text_encoder_params(folder, other)


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        ("config.json", {"hidden_act": "relu"}, 'hidden_act is "relu"; it must be "gelu"'),
        ("config.json", {"pad_token_id": 1}, "pad_token_id is 1"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ("config.json", {"num_hidden_layers": 300}, "layers is 300"),
        ("sentence_bert_config.json", {"max_seq_length": 25}, "max_length is 25"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "one of them pools"),
        ("1_Pooling/config.json", {"pooling_mode_lasttoken": True}, "pooling_mode_lasttoken"),
    ],
)
def test_what_is_not_supported_is_named(folder, file, changes, complaint):
    change(folder / file, **changes)
    with pytest.raises(ConvertError, match=complaint):
        read_text_encoder(folder, "--text_encoder")


def test_a_folder_without_a_tokenizer_and_a_drawing_model(folder):
    with pytest.raises(ConvertError, match="is not a model"):
        load(folder)
    (folder / "vocab.txt").unlink()
    with pytest.raises(ConvertError, match="has no tokenizer; put its files"):
        read_text_encoder(folder, "--text_encoder")
