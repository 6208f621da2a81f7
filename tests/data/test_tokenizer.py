import json
import pickle
import re
import unicodedata

import clip_files
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
    assert words.encode(["a pink three"], 4, skip_unknown=True)[0, 2:].tolist() == [0, 0]
    assert words.unknown(["a Red three", "a Pink or Pink one", "", "or"]) == [
        (1, "a Pink or Pink one", (("Pink", "Pink"), ("or", "or")), False),
        (3, "or", (("or", "or"),), True),
    ]
    assert words.known_words() == sorted(set(" ".join(CAPTIONS).split()))


def test_names_that_it_is_taught(words):
    """Single words have numbers behind all others; what would be read as several has none."""
    assert all(map(words.takes_name, ("zork", "red", "red three")))
    assert not any(map(words.takes_name, ("red zork", "<x>")))
    more, first = words.knowing(["Zork", "red", "blub", "zork", "red zork"]), words.vocab_size
    assert more.pieces("a zork BLUB") == [*words.pieces("a"), first, first + 1]
    assert not more.unknown(["zork"]) and words.unknown(["zork"])
    assert words.knowing(["red"]) is words
    pieces = tok.train_tokenizer(CAPTIONS, 64, "bpe")
    assert pieces.takes_name("hover") and not pieces.takes_name("kazoo")
    assert pieces.knowing(["hover", "kazoo"]) is pieces


def test_numbers_are_replaced_before_captions_are_cut(words):
    red = words.pieces("red")[0]

    def doubled(ids):
        return [n for one in ids for n in ([one, one] if one == red else [one])]

    tokens = words.encode(["a red three", "red red"], 4, replaced=doubled)
    assert tokens[0].tolist() == [*words.pieces("a red red three")]
    assert tokens[1].tolist() == [red] * 4


def test_pieces_read_words_that_training_did_not_show():
    pieces = tok.train_tokenizer([*CAPTIONS, "It's a Café, isn't it. \"Café!\""], 200, "bpe")
    # No caption has a word that ends in v or b, nor a word that ends in é before a stop.
    for text in ("seventeen", "abv vb", "fée. née!", 'cafés "nine"', "a, c's"):
        assert pieces.unknown([text]) == [], text
        row = pieces.encode([text.upper()], 40)[0]
        assert pieces.decode(row).replace(" ", "") == text.replace(" ", "")
    assert pieces.unknown(["a kazoo 😀"])[0].words == (("kazoo", "k"), ("😀", "😀"))
    skipped, wanted = pieces.encode(["a kazoo red", "a red"], 9, skip_unknown=True)
    np.testing.assert_array_equal(skipped, wanted)
    assert {"red", "seven", "café"} <= {*pieces.known_words()}
    small = tok.train_tokenizer([*CAPTIONS, "北京 кот"], 24, "bpe")
    assert small.vocab_size <= 24


def test_long_captions_are_cut_and_reported_once(words, caplog):
    cut = words.encode([CAPTIONS[0], CAPTIONS[1]], 3)
    np.testing.assert_array_equal(cut[0], words.encode(["a red three"], 3)[0])
    assert len(caplog.records) == 1 and CAPTIONS[0] in caplog.text


def test_cut_captions_and_unknown_words_are_counted(words, tmp_path, monkeypatch):
    captions = [*CAPTIONS, "a pink, blue pink one", ""]
    # The comma is a word, too, and unknown as "pink" is, which is there twice.
    assert tok.caption_statistics(words, captions, 6) == (5, 2, 25, 3)
    pieces = tok.train_tokenizer(CAPTIONS, 100, "bpe")
    assert tok.caption_statistics(pieces, ["a zebra", "red"], 3) == (2, 1, 3, 1)
    clip = tok.load_clip_tokenizer(clip_files.write_clip(tmp_path))
    assert tok.caption_statistics(clip, iter(["a red", "a red red"]), 4) == (2, 1, 5, 0)
    monkeypatch.setattr(tok, "COUNTED", 2)
    assert tok.caption_statistics(words, ["a", "b", "red"], 9) == (2, 0, 2, 1)


def test_rare_words_are_dropped_with_a_warning(caplog):
    small = tok.train_tokenizer(CAPTIONS, 6)
    assert small.vocab_size == 6 and "rarest" in caplog.text
    assert small.encode(["a three"], 2)[0, 0] > 1 and small.encode(["a three"], 2)[0, 1] == 1


def test_bad_settings_and_files(tmp_path):
    with pytest.raises(tok.TokenizerError, match="at least 3"):
        tok.train_tokenizer(CAPTIONS, 2)
    with pytest.raises(tok.TokenizerError, match="at least 4"):
        tok.train_tokenizer(CAPTIONS, 3, "bpe")
    with pytest.raises(tok.TokenizerError, match="the 1 captions have no words"):
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
    assert loaded.decode(loaded.encode(["A red"], 9)[0]) == "a red"


ODD = [
    "",
    "a  RED\tcat\n three",
    "café, Ünïcödé ＷＩＤＥ ß",
    "😀🏳️‍🌈 a",
    "don't we'll they're (masterpiece:1.2), [a|b] \\\\",
    "<b>red</b> &amp; &lt;cat&gt;",
    "3.14159 ½ ² 2023",
    "redred " + "cat" * 60,
    "北京 кот hund—katze…“x”",
    "!!! wow!",
    "cafe\u0301 \u00a0 \u200b a",
]


def reference(folder, text: str) -> list[int]:
    """CLIP's ids of a text without its frame, the slow way (Sennrich 2016, over bytes)."""
    vocab = json.loads((folder / "vocab.json").read_text())
    ranks = (folder / "merges.txt").read_text().splitlines()[1:]
    letters = clip_files.byte_letters()

    def kind(c: str) -> str:
        return {"L": "letter", "N": "number", "Z": "space"}.get(unicodedata.category(c)[0], "other")

    text = re.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()
    ids = []
    while text:
        contraction = re.match(r"'(s|t|re|ve|m|ll|d)", text)
        same = 1
        while same < len(text) and kind(text[same]) == kind(text[0]):
            same += 1
        size = len(contraction[0]) if contraction else 1 if kind(text[0]) == "number" else same
        word, text = text[:size], text[size:]
        if kind(word[0]) == "space":
            continue
        parts = [letters[b] for b in word.encode()]
        parts[-1] += "</w>"
        while pairs := [
            p for p in ranks if p in map(" ".join, zip(parts, parts[1:], strict=False))
        ]:
            i = next(i for i in range(len(parts)) if " ".join(parts[i : i + 2]) == pairs[0])
            parts[i : i + 2] = ["".join(parts[i : i + 2])]
        ids.extend(vocab[part] for part in parts)
    return ids


@pytest.mark.parametrize("pad", [clip_files.END, "!"])
def test_clip_of_a_diffusers_folder_agrees_with_transformers(tmp_path, pad):
    from transformers import CLIPTokenizer

    folder = clip_files.write_clip(tmp_path / "tokenizer", pad)
    clip, peer = tok.load_clip_tokenizer(folder), CLIPTokenizer.from_pretrained(str(folder))
    expected = peer(ODD, padding="max_length", max_length=77, truncation=True).input_ids
    np.testing.assert_array_equal(clip.encode(ODD, 77), expected)
    assert clip.pad_id == (0 if pad == "!" else clip.end_id)
    clip.save(tmp_path / "saved.json")
    saved = tok.load_tokenizer(tmp_path / "saved.json")
    np.testing.assert_array_equal(saved.encode(ODD, 77), expected)
    assert (saved.start_id, saved.end_id) == (clip.start_id, clip.end_id)


@pytest.mark.parametrize("text", ODD)
def test_clip_splits_odd_prompts_as_its_definition_says(tmp_path, text):
    folder = clip_files.write_clip(tmp_path)
    assert tok.load_clip_tokenizer(folder).pieces(text) == reference(folder, text)


def test_frames(tmp_path, words):
    assert (words.start_id, words.end_id) == (None, None)
    assert words.pieces("a red") == words.encode(["a red"], 2)[0].tolist()
    clip = tok.load_clip_tokenizer(clip_files.write_clip(tmp_path))
    assert clip.pieces("") == []
    ids = clip.pieces("red cat " * 100)
    assert len(ids) == 200 and clip.start_id not in ids and clip.end_id not in ids
    row = clip.encode(["red cat"], 9)[0].tolist()
    assert row == [clip.start_id, *clip.pieces("red cat"), *[clip.end_id] * 6]


def test_bert(tmp_path):
    from transformers import BertTokenizer

    folder = clip_files.write_bert(tmp_path)
    bert = tok.load_bert_tokenizer(folder)
    assert (
        bert.encode(["A red CATS, Café"], 77)[0].tolist() == [2, 5, 6, 7, 8, 11, 10, 3] + [0] * 69
    )
    assert bert.empty(4).tolist() == [2, 3, 0, 0]
    assert (bert.pad_id, bert.start_id, bert.end_id) == (0, 2, 3)
    assert bert.encode(["a a a red"], 4)[0].tolist() == [2, 5, 5, 3]
    peer = BertTokenizer.from_pretrained(str(folder))
    expected = peer(ODD, padding="max_length", max_length=77, truncation=True).input_ids
    np.testing.assert_array_equal(bert.encode(ODD, 77), expected)
    peer.save_pretrained(tmp_path / "fast")
    (tmp_path / "fast" / "vocab.txt").unlink(missing_ok=True)
    np.testing.assert_array_equal(
        tok.load_bert_tokenizer(tmp_path / "fast").encode(ODD, 77), expected
    )
    bert.save(tmp_path / "saved.json")
    saved = tok.load_tokenizer(tmp_path / "saved.json")
    np.testing.assert_array_equal(saved.encode(ODD, 77), expected)
    assert bert.unknown(["a zebra"])[0].words == (("zebra", "zebra"),)
    assert "red" in bert.known_words() and "[CLS]" not in bert.known_words()
    assert bert.encode(["a zebra"], 77, skip_unknown=True)[0, :4].tolist() == [2, 5, 3, 0]


def test_bert_settings_and_bad_folders(tmp_path):
    with pytest.raises(tok.TokenizerError, match=r"no vocab.txt and no tokenizer.json"):
        tok.load_bert_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    clip_files.write_bert(tmp_path)
    assert tok.load_bert_tokenizer(tmp_path).pieces("Red red") == [1, 6]
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(tok.TokenizerError, match="cannot read BERT's"):
        tok.load_bert_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "vocab.txt").write_text("a\nred\n")
    with pytest.raises(tok.TokenizerError, match="BERT"):
        tok.load_bert_tokenizer(tmp_path)
    clip_files.write_clip(tmp_path / "clip")
    tok.load_clip_tokenizer(tmp_path / "clip").save(tmp_path / "clip" / "tokenizer.json")
    with pytest.raises(tok.TokenizerError, match="it is not BERT's"):
        tok.load_bert_tokenizer(tmp_path / "clip")


@pytest.mark.parametrize(
    "text", ["[]", "[" * 200_000, '{"padding": 3}', '{"version": "1.0", "version": "1.0"}', "\0"]
)
def test_hostile_tokenizer_files_are_refused_by_name(words, tmp_path, text):
    path = tmp_path / "tokenizer.json"
    path.write_text(text)
    with pytest.raises(tok.TokenizerError, match="tokenizer.json"):
        tok.load_tokenizer(path)
    for load in (tok.load_clip_tokenizer, tok.load_bert_tokenizer):
        with pytest.raises(ValueError, match=str(tmp_path)):
            load(tmp_path)
    words.save(path)
    found = json.loads(path.read_text())
    for padding in (3, {}, {"pad_id": "0"}, {"pad_id": 10**6}, {"pad_id": True}):
        path.write_text(json.dumps(found | {"padding": padding}))
        with pytest.raises(tok.TokenizerError, match="tokenizer.json"):
            tok.load_tokenizer(path)
