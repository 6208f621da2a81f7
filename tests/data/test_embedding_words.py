"""Words with vectors of their own in prompts."""

import clip_files
import numpy as np
import pytest

from ldm_jax.data import prompts
from ldm_jax.data.embedding_words import EmbeddingWord, EmbeddingWords, Unit
from ldm_jax.data.tokenizer import load_clip_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_clip_tokenizer(clip_files.write_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def words(tokenizer):
    return EmbeddingWords(tokenizer, [
        EmbeddingWord("cat", (700, 701)), EmbeddingWord("cat red", (702,)),
        EmbeddingWord("cat", (703,)),
    ])  # fmt: skip


def test_the_longest_name_is_meant(tokenizer, words):
    red = tokenizer.pieces("red")[0]
    units = words.units(tokenizer.pieces("red cat cat red"))
    assert units == [Unit((red,)), Unit((700, 701), "cat"), Unit((702,), "cat red")]


def test_they_have_the_weight_of_their_word(tokenizer, words):
    found = prompts.encode(tokenizer, ["red (cat:1.5) red"], words=words)
    np.testing.assert_array_equal(found.ids[0, 0, 2:4], [700, 701])
    np.testing.assert_array_equal(found.weights[0, 0, :5], np.float32([1, 1, 1.5, 1.5, 1]))


def test_chunks_do_not_cut_them(tokenizer, words):
    """Where one does not fit, the next chunk begins."""
    chunks = prompts.chunks_of(tokenizer, "red red cat three", 3, words=words)
    assert [[number for number, _ in chunk][:2] for chunk in chunks][1] == [700, 701]
    assert list(map(len, chunks)) == [2, 3]
    assert list(map(len, prompts.chunks_of(tokenizer, "BREAK red cat", 3, words=words))) == [0, 3]
    with pytest.raises(prompts.PromptError, match="'cat' has 2 vectors; .* room for 1"):
        prompts.chunks_of(tokenizer, "cat", 1, words=words)
