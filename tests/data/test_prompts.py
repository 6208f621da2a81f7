"""Emphasis syntax, and chunks of tokens with their weights."""

import clip_files
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldm_jax.data import tokenizer as tok
from ldm_jax.data.prompts import PromptError, encode, parse, refuse_emphasis


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tok.load_clip_tokenizer(clip_files.write_clip(tmp_path_factory.mktemp("clip")))


@pytest.fixture(scope="module")
def clip2(tmp_path_factory):
    return tok.load_clip_tokenizer(clip_files.write_clip(tmp_path_factory.mktemp("clip"), "!"))


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("", []),
        ("a cat", [("a cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", 1 / 1.1), (" cat", 1)]),
        ("(red:1.3)", [("red", 1.3)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(red:-1)", [("red", -1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("(a:b:2)", [("a:b", 2)]),
        ("((a))[[b]]", [("a", 1.1**2), ("b", 1.1**-2)]),
        ("(a (b:2) c)", [("a ", 1.1), ("b", 2.2), (" c", 1.1)]),
        ("(a)(b)", [("ab", 1.1)]),
        ("()", []),
        (r"\(a\) \[b\] \\", [(r"(a) [b] " + "\\", 1)]),
        (r"(a\):2)", [("a)", 2)]),
        ("a\\b\\", [("ab", 1)]),
        # brackets that nobody closes, or opens
        ("a (b c", [("a ", 1), ("b c", 1.1)]),
        ("a [b c", [("a ", 1), ("b c", 1 / 1.1)]),
        ("((a) b", [("a", 1.1**2), (" b", 1.1)]),
        ("a) b] c:2)", [("a) b] c:2)", 1)]),
        # The two kinds of brackets do not see each other.
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 1 / 1.1)]),
        ("[a:2) b", [("a:2) b", 1 / 1.1)]),
        ("a: b, c|d", [("a: b, c|d", 1)]),
    ],
)
def test_weights(prompt, expected):
    (section,) = parse(prompt)
    assert [text for text, _ in section] == [text for text, _ in expected]
    np.testing.assert_allclose([w for _, w in section], [w for _, w in expected], rtol=1e-12)


def test_break_starts_sections():
    assert parse("a  BREAK\nb") == [[("a", 1.0)], [("b", 1.0)]]
    assert parse("BREAK a BREAK BREAK b") == [[], [("a", 1.0)], [], [("b", 1.0)]]
    assert parse("(a BREAK b:2) c") == [[("a", 2.0)], [("b", 2.0), (" c", 1.0)]]
    assert parse("unBREAKable BREAKs break") == [[("unBREAKable BREAKs break", 1.0)]]


@pytest.mark.parametrize(
    "prompt, why",
    [
        ("(a:1.2.3)", r"'1.2.3' in the prompt '\(a:1.2.3\)' is no number"),
        ("(a:1e9:200)", "weight of 200; it must be within ±100"),
        ("(" * 60 + "a", "it must be within ±100"),
        ("[a:b:0.5]", "cannot change while a picture is drawn"),
        ("[a:12]", r"\(words:0.9\)"),
        ("x [a|(b:1.1)]", r"\[a\|\(b:1.1\)\]"),
        ("a cat AND a dog", "'AND' in the prompt .* lower case"),
        ("a <lora:x:0.8>", "are named in the positive prompt only"),
    ],
)
def test_syntax_without_a_meaning_here_is_refused(prompt, why):
    with pytest.raises(PromptError, match=why):
        parse(prompt)


@settings(deadline=None)
@given(st.text())
def test_text_without_syntax_is_untouched(text):
    for sign in "()[]\\":
        text = text.replace(sign, "")
    assert parse(text) == [[(text, 1.0)] if text else []]


@settings(deadline=None)
@given(st.text("ab ()[]\\:.1", max_size=40))
def test_any_brackets_parse_or_are_refused(prompt):
    try:
        sections = parse(prompt)
    except PromptError:
        return
    kept = "".join(text for section in sections for text, _ in section)
    assert len(kept) <= len(prompt)
    assert all(w != v for s in sections for (_, w), (_, v) in zip(s, s[1:], strict=False))


@pytest.mark.parametrize("emphasis", [True, False])
def test_a_plain_prompt_has_the_plain_tokens(clip, clip2, emphasis):
    prompts = ["", "a red cat, three: a", "cat " * 75]
    for tokenizer in (clip, clip2):
        tokens = encode(tokenizer, prompts, emphasis=emphasis)
        assert tokens.ids.shape == (3, 1, 77) and tokens.ids.dtype == np.int32
        np.testing.assert_array_equal(tokens.ids[:, 0], tokenizer.encode(prompts, 77))
        assert tokens.weights.dtype == np.float32 and (tokens.weights == 1).all()


def test_weights_stand_beside_their_tokens(clip):
    tokens = encode(clip, ["a (red:1.5) cat"], 9)
    expected = [clip.start_id, *clip.pieces("a red cat"), *[clip.end_id] * 5]
    assert tokens.ids[0, 0].tolist() == expected
    assert tokens.weights[0, 0].tolist() == [1, 1, 1.5, 1, 1, 1, 1, 1, 1]


def test_literal_prompts_keep_their_brackets(clip):
    prompt = r"(a:1.5) [b|c] AND \ BREAK"
    tokens = encode(clip, [prompt], emphasis=False)
    assert (tokens.weights == 1).all()
    np.testing.assert_array_equal(tokens.ids[0], clip.encode([prompt], 77))


def test_long_prompts_become_chunks(clip2):
    red, cat = clip2.pieces("red cat")
    start, end = clip2.start_id, clip2.end_id
    long = "red " * 70 + "(" + "cat " * 90 + ":2)"
    tokens = encode(clip2, [long, "red BREAK cat"])
    assert tokens.ids.shape == tokens.weights.shape == (2, 3, 77)
    assert tokens.ids[0, 0].tolist() == [start] + [red] * 70 + [cat] * 5 + [end]
    assert tokens.ids[0, 1].tolist() == [start] + [cat] * 75 + [end]
    assert tokens.ids[0, 2].tolist() == [start] + [cat] * 10 + [end] + [0] * 65
    assert tokens.weights[0].sum() == 3 * 77 + 90
    assert tokens.ids[1, 0].tolist() == [start, red, end] + [0] * 74
    assert tokens.ids[1, 1].tolist() == [start, cat, end] + [0] * 74
    np.testing.assert_array_equal(tokens.ids[1, 2], clip2.empty(77))
    assert (tokens.weights[1] == 1).all()


def test_break_after_a_full_chunk_makes_no_empty_one(clip):
    assert encode(clip, ["cat " * 75 + "BREAK red"]).ids.shape[1] == 2
    assert encode(clip, ["red BREAK"]).ids.shape[1] == 1


def test_no_prompts(clip):
    assert encode(clip, []).ids.shape == (0, 0, 77)


def test_chunks_need_a_frame():
    words = tok.train_tokenizer(["a red cat"], 64)
    with pytest.raises(PromptError, match="start and end tokens"):
        encode(words, ["a"])


def test_emphasis_without_clips_text_encoder_is_refused():
    refuse_emphasis(["a red cat", r"a \(red\) cat :)", ""])
    for prompt in ("a (red:1.2) cat", "a [red] cat", "((red)) cat"):
        with pytest.raises(PromptError, match=r"needs CLIP's text encoder.*--literal_prompts"):
            refuse_emphasis(["a cat", prompt])
