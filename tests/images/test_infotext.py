"""The web UI's parameters: text, names of samplers, PNG files."""

import re
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from ldm_jax.config.request import Request
from ldm_jax.core.reading import FileFormatError
from ldm_jax.images import grid, infotext
from ldm_jax.images.infotext import Infotext, InfotextError, format_parameters, parse_parameters
from ldm_jax.images.picture_text import parameters

SETTINGS = {
    "Steps": "20", "Sampler": "Euler a", "CFG scale": "7", "Seed": "1", "Size": "512x512",
    "Model hash": "6ce0161689", "Clip skip": "2",
}  # fmt: skip


def test_the_text_is_the_web_uis():
    info = Infotext("a red cat,\n(blue:1.2)", "ugly\nblurred", SETTINGS | {"TI hashes": "a: b, c"})
    text = (
        "a red cat,\n(blue:1.2)\nNegative prompt: ugly\nblurred\n"
        "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, "
        'Model hash: 6ce0161689, Clip skip: 2, TI hashes: "a: b, c"'
    )
    assert format_parameters(info) == text
    assert parse_parameters(text) == info


KEYS = st.from_regex(r"[A-Za-z][\w \-/]{0,8}\w", fullmatch=True).filter(lambda k: k not in SETTINGS)


PROMPTS = st.text().filter(lambda text: infotext.NEGATIVE not in text)


@settings(deadline=None)
@given(PROMPTS, PROMPTS, st.dictionaries(KEYS, st.text(), max_size=4))
@example("Steps: 3, Sampler: x, Seed: 4", "Steps: 3, Sampler: x, Seed: 4", {})
@example("", "", {"empty": "", "quoted": '"x"', "open": '"', "json": "a\\nb", "sp": " a "})
@example(" \n", "\n ", {})
@example("a\r", "b\x0b", {"ab": "\x85"})
@example("a\r\n b", "\r\n", {})
def test_round_trip(prompt, negative, more):
    info = Infotext(prompt, negative, SETTINGS | more)
    with_lines = [re.sub("\r\n|\r", "\n", text) for text in (prompt, negative)]
    assert parse_parameters(format_parameters(info)) == Infotext(*with_lines, info.settings)


@pytest.mark.parametrize("line", ["Negative prompt: x", "a\n  Negative prompt:x\nb"])
def test_a_prompt_that_would_be_read_as_the_negative_one_is_refused(line):
    for prompts in ((line, ""), ("", line)):
        with pytest.raises(InfotextError, match="would be read as the negative prompt"):
            format_parameters(Infotext(*prompts, SETTINGS))
    inside = Infotext("no Negative prompt: here", "Negative prompts", SETTINGS)
    assert parse_parameters(format_parameters(inside)) == inside


def test_settings_that_would_not_be_recognised_are_refused():
    with pytest.raises(InfotextError, match="are Steps, Seed; they are recognised only if"):
        format_parameters(Infotext("a", "", {"Steps": "2", "Seed": "1"}))
    with pytest.raises(InfotextError, match="begin with Steps"):
        format_parameters(Infotext("a", "", {"Seed": "1", "Steps": "2", "Size": "8x8"}))
    for key in ("", "x", "a:b", "a ", " ab", "a,b", "a\nb"):
        with pytest.raises(InfotextError, match="no possible name"):
            format_parameters(Infotext("a", "", SETTINGS | {key: "1"}))


def test_foreign_texts():
    assert parse_parameters("just a prompt: x\n ") == Infotext("just a prompt: x\n ")
    assert parse_parameters("a: b, c: d, e: f").prompt == "a: b, c: d, e: f"
    assert parse_parameters("") == Infotext()
    commas = parse_parameters("Steps: 2, Model: a, b ,c, Seed: 3,Size: 8x8, \n\n")
    assert commas.settings == {"Steps": "2", "Model": "a, b,c", "Seed": "3", "Size": "8x8"}


def test_what_other_programs_add_is_said_and_spoils_nothing():
    found = parse_parameters(
        "a\r\nNegative prompt: b\r\nSteps: 1, Seed: 1, Sampler: x, Seed: 2\r\n"
    )
    assert (found.prompt, found.negative_prompt) == ("a", "b")
    assert found.settings == {"Steps": "1", "Seed": "2", "Sampler": "x"}
    assert found.problems == ("Seed is there twice, as '1' and, which counts, as '2'",)
    found = parse_parameters("a\nSteps: 1, Seed: 1, Size: 8x8\nTemplate: a cat\nmore")
    assert (found.prompt, found.settings["Seed"]) == ("a", "1")
    assert found.problems == ("lines after its settings: 'Template: a cat'",)


def test_settings_that_cannot_be_used_are_named():
    settings = {"Steps": "two", "Sampler": "DPM fast", "Size": "8", "CFG scale": "1", "Seed": "3"}
    values, problems = infotext.as_settings(Infotext("a", "b", settings))
    assert values == {"prompt": ["a"], "guidance_scale": 1.0, "seed": 3}
    for problem, words in zip(
        problems,
        ("Sampler is 'DPM fast'", "Steps is 'two', which is no", "Size is '8'", "negative prompt"),
        strict=True,
    ):
        assert words in problem


@settings(deadline=None)
@given(st.text(alphabet='a: ,"\\\n', max_size=60))
def test_any_text_is_read(text):
    parse_parameters(f"x\nSteps: 1, {text}")


def test_long_texts_are_read_in_time():
    for text in (
        "a" * 10**6,
        "Steps: 1, " + "a " * 10**5,
        "\n" * 10**6,
        'Steps: "' + '\\"' * 10**5,
    ):
        parse_parameters(text)


def test_settings_that_are_not_used_are_named():
    settings = {"Steps": "2", "Model": "m", "Hires upscale": "2", "AddNet": "x"}
    _, problems = infotext.as_settings(Infotext("a", "", settings))
    assert [problem.split(" is ")[0] for problem in problems[1:]] == [
        "Hires upscale",
        "AddNet",
    ]


def test_samplers_have_names_both_ways():
    for ours in infotext.SAMPLERS.values():
        for spacing in ("linspace", "karras", "trailing"):
            found = infotext.read_sampler(infotext.sampler_settings(ours, spacing))
            discrete = ours in infotext.DISCRETE and spacing != "karras"
            assert found == (ours, "ddim_uniform" if discrete else spacing)


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({"Sampler": "DPM++ 2M Karras"}, ("dpmpp_2m", "karras")),
        ({"Sampler": "DPM++ 2M", "Schedule type": "Karras"}, ("dpmpp_2m", "karras")),
        ({"Sampler": "DPM++ 2M", "Schedule type": "Automatic"}, ("dpmpp_2m", "karras")),
        ({"Sampler": "DPM++ 2M"}, ("dpmpp_2m", "linspace")),
        ({"Sampler": "Euler a", "Schedule type": "Automatic"}, ("euler_a", "linspace")),
        ({"Sampler": "Euler", "Schedule type": "SGM Uniform"}, ("euler", "trailing")),
        ({"Sampler": "DDIM", "Steps": "30"}, ("ddim", "ddim_uniform")),
        ({"Sampler": "PLMS", "Steps": "27"}, ("plms", "leading")),
    ],
)
def test_samplers_of_both_generations(settings, expected):
    assert infotext.read_sampler(settings) == expected


@pytest.mark.parametrize(
    "settings, why",
    [
        ({}, "Sampler is ''; known are Euler, Euler a"),
        ({"Sampler": "DPM fast"}, "'DPM fast'; known are .* or DDPM"),
        ({"Sampler": "Restart Karras"}, "'Restart'"),
        ({"Sampler": "Euler", "Schedule type": "Beta"}, "'Beta'; known are Automatic, Karras"),
        ({"Sampler": "Heun Karras", "Schedule type": "Uniform"}, "contradicts"),
    ],
)
def test_other_samplers_are_refused(settings, why):
    with pytest.raises(InfotextError, match=why):
        infotext.read_sampler(settings)


def test_a_sampler_without_a_name():
    with pytest.raises(InfotextError, match="no name for 'unipc_3', only for euler"):
        infotext.sampler_settings("unipc_3", "karras")


def test_png_files_carry_the_text(tmp_path):
    text = format_parameters(Infotext("a café 😀", "x\ny", SETTINGS))
    path = tmp_path / "a.png"
    grid.save_png(path, np.zeros((4, 4, 3), np.uint8), {infotext.CHUNK: text, "ldm_jax": "{}"})
    assert infotext.read_png(path) == {"parameters": text, "ldm_jax": "{}"}
    # as the web UI itself writes it, and compressed
    for compressed in (False, True):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("parameters", "a cat", zip=compressed)
        Image.new("RGB", (4, 4)).save(path, pnginfo=chunks)
        assert infotext.read_png(path) == {"parameters": "a cat"}


def test_text_behind_the_pixels_is_found_and_cut_files_are_refused(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (9, 9, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    body = b"tEXtparameters\0a cat"
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    path.write_bytes(whole[:-12] + chunk + whole[-12:])
    assert infotext.read_png(path) == {"parameters": "a cat"}
    data = path.read_bytes()
    for size in range(len(data) - 4):  # the last four bytes are the end's checksum
        path.write_bytes(data[:size])
        with pytest.raises(FileFormatError, match="a.png"):
            infotext.read_png(path)


def test_what_is_no_png_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="absent.png: does not exist"):
        infotext.read_png(tmp_path / "absent.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(FileFormatError, match=r"a.jpg: is no picture that can be read \(PNG\)"):
        infotext.read_png(tmp_path / "a.jpg")


def test_text_that_inflates_beyond_the_limit_is_refused(tmp_path):
    body = b"zTXtparameters\0\0" + zlib.compress(b"a" * 2**22)
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for place in (33, len(whole) - 12):  # before and behind the pixels
        (tmp_path / "b.png").write_bytes(whole[:place] + chunk + whole[place:])
        with pytest.raises(FileFormatError, match="b.png: .*too large"):
            infotext.read_png(tmp_path / "b.png")


def test_the_second_scale_of_models_that_edit_is_told_and_read():
    request = Request.from_dict({
        "model": "m", "prompt": ["a"], "steps": 2, "guidance_scale": 7.5, "seed": 1,
        "image_guidance_scale": 1.25, "sampler": "ddim", "height": 8, "width": 8,
    })  # fmt: skip
    info = parse_parameters(parameters(request))
    assert info.settings["Image CFG scale"] == "1.25"
    assert infotext.as_settings(info)[0]["image_guidance_scale"] == 1.25
    without = request.changed(image_guidance_scale=None)
    assert "Image CFG scale" not in parameters(without)
