"""`<lora:NAME:0.8>` in prompts, as the web UI reads it; and adapters on the command line."""

import pytest

from ldm_jax.config.checks import ConfigError
from ldm_jax.config.lora_choice import LoraChoice
from ldm_jax.data.adapter_tags import Tag, cut_tags


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("<lora:a>", Tag("a", 1.0, 1.0)),
        ("<lora:a b.v2:0.8>", Tag("a b.v2", 0.8, 0.8)),
        ("<lyco:a:0.5:-1>", Tag("a", 0.5, -1.0)),
        ("<lora:a:te=0.5>", Tag("a", 0.5, 0.5)),
        ("<lora:a:unet=0.5>", Tag("a", 1.0, 0.5)),
        ("<lora:a:0.2:unet=0.5>", Tag("a", 0.2, 0.5)),
        ("<LoRA:a:te=0:unet=2>", Tag("a", 0.0, 2.0)),
        ("<hypernet:a b>", Tag("a b", kind="hypernet")),
        ("<HyperNet:a:-0.5>", Tag("a", -0.5, -0.5, "hypernet")),
    ],
)
def test_strengths(tag, expected):
    assert cut_tags(f"one {tag} two") == ("one  two", (expected,))


def test_several_and_none():
    assert cut_tags("<lora:a>x<lora:b:2>") == ("x", (Tag("a"), Tag("b", 2.0, 2.0)))
    for plain in ("a <b> (c:1.2)", "<lora a>", "a < lora:b", ""):
        assert cut_tags(plain) == (plain, ())


@pytest.mark.parametrize(
    ("text", "file", "strengths"),
    [
        ("a.safetensors", "a.safetensors", (1.0, 1.0)),
        ("a:b.pt:0.5", "a:b.pt", (0.5, 0.5)),
        ("folder/a:-1:.25", "folder/a", (-1.0, 0.25)),
        ("a:1:2:3", "a:1", (2.0, 3.0)),
    ],
)
def test_one_spelling(text, file, strengths):
    choice = LoraChoice.parse(text)
    assert (str(choice.file), (choice.text_encoder, choice.unet)) == (file, strengths)
    assert LoraChoice.parse(str(choice)) == choice
    assert str(LoraChoice.parse(str(choice))) == str(choice)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no file"),
        (":0.5", "names no file"),
        ("a:nan", "the strength nan is not within"),
        ("a:101", "the strength 101 is not within ±100"),
    ],
)
def test_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        LoraChoice.parse(text)
