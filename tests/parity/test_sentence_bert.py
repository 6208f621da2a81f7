"""Sentence encoders beside transformers' BERT, live, in a folder that transformers writes.

Everything is float32; sums in another order make errors of some 1e-6 of states of length 1 for each
number.
"""

import jax
import numpy as np
import pytest
import sentence_files

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch_state import randomize  # noqa: E402
from transformers import BertConfig, BertModel, BertTokenizerFast  # noqa: E402

from ldm_jax.convert.loading import read_text_encoder  # noqa: E402
from ldm_jax.data.tokenizer import read_tokenizer  # noqa: E402
from ldm_jax.models.build import build_conditioner  # noqa: E402

# Torch and transformers warn of their own future.
pytestmark = pytest.mark.filterwarnings("default")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}
CAPTIONS = ["A red three.", "", "a blue seven above a red three, and a red three", "café"]
WORDS = ["a", "red", "three", "blue", "seven", "above", "and", ",", ".", "cafe"]


def test_states_and_the_mean_of_them(tmp_path):
    folder = sentence_files.write(tmp_path / "bert", WORDS)
    shape = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
             "intermediate_size", "max_position_embeddings")  # fmt: skip
    config = BertConfig(**{name: sentence_files.CONFIG[name] for name in shape})
    model = randomize(BertModel(config))
    model.save_pretrained(folder)
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    given = tokenizer(CAPTIONS, padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        expected = model(**given).last_hidden_state.numpy()
    seen = given["attention_mask"].numpy()[:, :, None]

    text, params, files = read_text_encoder(folder, "--text_encoder")
    tokens = read_tokenizer(files, text).encode(CAPTIONS, text.encoder.max_length)
    np.testing.assert_array_equal(tokens, given["input_ids"])
    module = build_conditioner(text).module
    found = jax.jit(module.apply)({"params": params}, tokens)
    np.testing.assert_allclose(found.context, expected * seen, **CLOSE)
    mean = (expected * seen).sum(1) / seen.sum(1)
    np.testing.assert_allclose(found.pooled, mean, **CLOSE)
