import json
import pickle

import numpy as np
import pytest

from ldm_jax.data import tokenizer as tok

CAPTIONS = ["a red three above a blue seven", "a green one left of a red two", "a blue one alone"]


@pytest.fixture(scope="module")
def words():
    return tok.train_tokenizer(CAPTIONS, 64)


def test_words_become_numbers_padded_at_the_end(words):
    tokens = words.encode(["a red three", "A RED  three"], 6)
    assert tokens.shape == (2, 6) and tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens[0], tokens[1])
    assert (tokens[:, :3] > 1).all() and (tokens[:, 3:] == words.pad_id).all()
    assert words.decode(tokens[0]) == "a red three"
    assert words.vocab_size == 2 + len(set(" ".join(CAPTIONS).split()))
    assert tokens.max() < words.vocab_size


def test_the_empty_caption_is_padding(words):
    assert words.empty(5).tolist() == [0] * 5


def test_training_is_deterministic():
    first, second = (tok.train_tokenizer(CAPTIONS, 64).encode(CAPTIONS, 9) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("kind", ["word", "bpe"])
def test_save_and_load(tmp_path, kind):
    made = tok.train_tokenizer(CAPTIONS, 40, kind)
    made.save(tmp_path / "tokenizer.json")
    loaded = tok.load_tokenizer(tmp_path / "tokenizer.json")
    np.testing.assert_array_equal(loaded.encode(CAPTIONS, 20), made.encode(CAPTIONS, 20))
    assert loaded.vocab_size == made.vocab_size <= 40
    for caption, row in zip(CAPTIONS, loaded.encode(CAPTIONS, 40), strict=True):
        assert loaded.decode(row) == caption
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(made)).empty(3), loaded.empty(3))


def test_unknown_words(words):
    tokens = words.encode(["a pink three"], 4)
    assert tokens[0, 1] == 1
    with pytest.raises(tok.UnknownWordsError, match="'pink', 'or'; known are a, above, alone"):
        words.encode(["a Red three", "a pink or pink one"], 9, strict=True)


def test_pieces_read_words_that_training_did_not_show():
    pieces = tok.train_tokenizer(CAPTIONS, 100, "bpe")
    assert pieces.decode(pieces.encode(["seventeen"], 20, strict=True)[0]) == "seventeen"
    with pytest.raises(tok.UnknownWordsError, match="'z'"):
        pieces.encode(["a zebra"], 20, strict=True)


def test_long_captions_are_cut_and_reported_once(words, caplog):
    cut = words.encode([CAPTIONS[0], CAPTIONS[1]], 3)
    np.testing.assert_array_equal(cut[0], words.encode(["a red three"], 3)[0])
    assert len(caplog.records) == 1 and CAPTIONS[0] in caplog.text


def test_rare_words_are_dropped_with_a_warning(caplog):
    small = tok.train_tokenizer(CAPTIONS, 6)
    assert small.vocab_size == 6 and "rarest" in caplog.text
    assert small.encode(["a three"], 2)[0, 0] > 1 and small.encode(["a three"], 2)[0, 1] == 1


def test_bad_settings_and_files(tmp_path):
    with pytest.raises(tok.TokenizerError, match="more than 2"):
        tok.train_tokenizer(CAPTIONS, 2)
    with pytest.raises(tok.TokenizerError, match="no words in 1 captions"):
        tok.train_tokenizer([""], 10)
    with pytest.raises(tok.TokenizerError, match=r"absent.json"):
        tok.load_tokenizer(tmp_path / "absent.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(tok.TokenizerError, match="cannot read"):
        tok.load_tokenizer(tmp_path / "x.json")
    with pytest.raises(tok.TokenizerError, match=r"no vocab.json and no merges.txt"):
        tok.load_clip_tokenizer(tmp_path)


def test_clip_frames_captions_and_pads_with_the_end_token(tmp_path):
    tokens = ["!", "a", "r", "e", "d", "a</w>", "d</w>", "re", "red</w>", "e</w>", "r</w>"]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nr e\nre d</w>\n")
    clip = tok.load_clip_tokenizer(tmp_path)
    start, end = len(tokens) - 2, len(tokens) - 1
    assert clip.encode(["A red"], 77)[0].tolist() == [start, 5, 8] + [end] * 74
    assert clip.empty(4).tolist() == [start, end, end, end]
    assert clip.encode(["a a a a red"], 5)[0].tolist() == [start, 5, 5, 5, end]
    clip.save(tmp_path / "saved.json")
    loaded = tok.load_tokenizer(tmp_path / "saved.json")
    np.testing.assert_array_equal(loaded.encode(["a red"], 9), clip.encode(["a red"], 9))
