"""Prompts with words that a tokenizer does not know."""

import pytest

from ldm_jax.data import tokenizer as tok
from ldm_jax.data.unknown_words import UnknownWordsError, check_words

CAPTIONS = ["a red three above a blue seven", "a green one"]


@pytest.fixture(scope="module")
def words():
    return tok.train_tokenizer(CAPTIONS, 64)


def refusal(tokenizer, prompts, negative="", skip=False, names=()):
    with pytest.raises(UnknownWordsError) as caught:
        check_words(tokenizer, prompts, negative, skip)
    caught.value.names |= dict(names)
    return str(caught.value)


def test_one_bad_prompt_is_one_line_with_near_words(words):
    known = "known are a, above, blue, green, one, red, seven, three"
    advice = "choose other words, or leave the unknown ones out with --unknown_words=skip"
    assert refusal(words, ["a Gren Zebra"]) == (
        f"the model does not know 'Gren' (perhaps 'green'), 'Zebra' in the prompt 'a Gren Zebra'; "
        f"{advice}; {known}"
    )
    assert "in prompt 2 of 2, 'a zebra';" in refusal(words, ["a red one", "a zebra"])
    assert "in p.txt, line 7, 'zebra';" in refusal(words, ["zebra"], names={0: "p.txt, line 7"})
    assert "in the negative prompt, 'zebra';" in refusal(words, ["one"], "zebra")


def test_many_bad_prompts_are_told_at_once(words):
    prompts = ["a red one", *(f"a word{i}" for i in range(9))]
    first, *lines = refusal(words, prompts, names={1: "p.txt, line 4"}).splitlines()
    assert first.startswith("the model does not know words of 9 of 10 prompts; choose other words")
    assert lines[0] == "  p.txt, line 4, 'a word0': 'word0'"
    assert lines[1] == "  prompt 3 of 10, 'a word1': 'word1'"
    assert len(lines) == 6 and lines[-1] == "  and 4 more prompts"


def test_skipped_words_are_named_and_a_prompt_of_no_others_is_refused(words, caplog):
    check_words(words, ["a red zebra", "a mauve one"], "a zebra", skip=True)
    assert caplog.messages == [
        "left out of 3 of the prompts, because the model does not know them: 'zebra', 'mauve'"
    ]
    check_words(words, ["", "a red one"], "", skip=True)
    assert len(caplog.messages) == 1
    said = refusal(words, ["a zebra", "mauve zebra"], skip=True)
    assert said.startswith("the model knows no word of prompt 2 of 2, 'mauve zebra': 'mauve', ")


def test_an_unknown_character_is_told_with_its_word():
    pieces = tok.train_tokenizer(CAPTIONS, 100, "bpe")
    assert refusal(pieces, ["zeen"]) == (
        "the model does not know 'z' in 'zeen' (perhaps 'seven' or 'green') in the prompt 'zeen'; "
        "choose other words, or leave the unknown ones out with --unknown_words=skip"
    )
