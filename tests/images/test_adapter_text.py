"""Adapters in the web UI's text, written and read."""

import pytest

from ldm_jax.config.request import ModelChoice, Request
from ldm_jax.config.sampling import Sampling
from ldm_jax.images.adapter_text import checked_hashes, hashes_of, with_hypernetwork
from ldm_jax.images.infotext import as_settings, parse_parameters
from ldm_jax.images.picture_text import parameters

SAMPLING = Sampling(
    steps=5, seed=3, sampler="ddim", spacing="leading", guidance_scale=2.0, height=64, width=64
)


def text_of(hashes=None, prompt="a zork", **choice):
    model = ModelChoice.of("model", **choice)
    request = Request(prompt=(prompt,), sampling=SAMPLING, model=model)
    return parse_parameters(parameters(request, hashes or {}))


def test_hashes_are_written_as_the_web_ui_does():
    hashes = {
        "lora": {"style": "0123456789ab", "a:b,c": "ba9876543210"},
        "embeddings": {"zork": "00112233aabb"},
    }
    info = text_of(hashes, "a zork <lora:style:0.5>")
    assert info.prompt == "a zork <lora:style:0.5>"
    assert info.settings["Lora hashes"] == "style: 0123456789ab, abc: ba9876543210"
    assert info.settings["TI hashes"] == "zork: 00112233aabb"
    assert hashes_of(info.settings) == {
        "lora": {"style": "0123456789ab", "abc": "ba9876543210"}, "embeddings": hashes["embeddings"]
    }  # fmt: skip
    assert not as_settings(info)[1] and "Hypernet" not in info.settings


def test_what_is_chosen_for_the_model_is_said_by_tags():
    info = text_of(lora=("loras/style.v2.safetensors:0.5:1", "runs/mine"))
    assert info.prompt == "a zork <lora:style.v2:0.5:1> <lora:mine:1>"
    info = text_of(hypernetwork=("a.pt", "b.pt:-0.5"))
    assert info.prompt == "a zork <hypernet:a:1> <hypernet:b:-0.5>"


def test_one_hypernetwork_alone():
    info = text_of({"hypernetwork": {"hyper": "0123456789"}}, hypernetwork=("nets/hyper.pt:0.5",))
    named = {name: text for name, text in info.settings.items() if name.startswith("Hyper")}
    assert named == {
        "Hypernet": "hyper", "Hypernet strength": "0.5", "Hypernet hash": "0123456789"
    }  # fmt: skip
    assert info.prompt == "a zork"
    assert with_hypernetwork(info).prompt == "a zork <hypernet:hyper:0.5>"
    assert hashes_of(info.settings) == {"hypernetwork": {"hyper": "0123456789"}}
    assert hashes_of(info.settings | {"Hypernet hash": "01234567"}) == {}


@pytest.mark.parametrize("settings", [{}, {"Hypernet": "a<b>"}, {"Lora hashes": "nothing, at all"}])
def test_what_says_nothing(settings):
    info = parse_parameters("a\nSteps: 1, Seed: 2, Size: 8x8")
    info = type(info)(info.prompt, "", settings)
    assert with_hypernetwork(info) == info and hashes_of(settings) == {}


@pytest.mark.parametrize("found", [None, 3, [], {"lora": 3}, {"other": {"a": "b"}}])
def test_damaged_hashes_are_left_out(found):
    assert checked_hashes(found) == {}
    assert checked_hashes({"lora": {"a": 3, "b": "ff"}}) == {"lora": {"b": "ff"}}
