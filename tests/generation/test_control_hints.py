"""Hints for ControlNets: how they are spelled, when they act, and drawing with them."""

import json
from dataclasses import replace
from pathlib import Path

import clip_files
import convert_models as small
import jax
import numpy as np
import pytest
from PIL import Image

import ldm_jax
from ldm_jax import config as cfg
from ldm_jax.config.control_choice import ControlChoice, ControlHints, HintChoice, check_hints
from ldm_jax.convert import imported_model
from ldm_jax.convert.controlnets.control_files import ImportedControl
from ldm_jax.convert.controlnets.control_writer import write_control
from ldm_jax.convert.imported_model import ConvertError
from ldm_jax.convert.native import write_native
from ldm_jax.generation.control_hints import Hints, control_numbers, resized, shown
from ldm_jax.images.infotext import read_png
from ldm_jax.models.process import build_process
from ldm_jax.sampling.levels import levels

CAT = "a red cat"
CONFIG = replace(
    small.MODELS["sd1"],
    unet=replace(small.UNET, block_out_channels=(32,), attention=(True,), num_heads=(4,)),
    conditioners=(cfg.TextConditioner(replace(small.CLIP, vocab_size=600), tokenizer="clip"),),
)  # fmt: skip
BRANCH = cfg.control_of(CONFIG.unet, CONFIG.autoencoder)
HOW = {"steps": 2, "seed": 1, "guidance_scale": 2.0, "height": 16, "width": 16}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.png", HintChoice(Path("a.png"))),
        ("canny:a:b.png", HintChoice(Path("a:b.png"), (100.0, 200.0))),
        ("canny:50:150:a.png", HintChoice(Path("a.png"), (50.0, 150.0))),
        ("fill:canny:a.png", HintChoice(Path("a.png"), (100.0, 200.0), "fill")),
        ("crop:crop:a.png", HintChoice(Path("crop:a.png"), fit="crop")),
    ],
)
def test_spelling_of_hints(text, expected):
    found = HintChoice.parse(text)
    assert found == expected
    assert HintChoice.parse(str(found)) == found


def test_spelling_of_controls():
    assert ControlChoice.parse("nets/a:b").scale == 1
    assert ControlChoice.parse("nets/a:0.5").scale == 0.5
    assert str(ControlChoice.parse("a:-1")) == "a:-1.0"
    for wrong, words in ((":0.5", "names no file"), ("a:1e9", "not within")):
        with pytest.raises(cfg.ConfigError, match=words):
            ControlChoice.parse(wrong)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"hint": ("canny:",)}, "names no file"),
        ({"hint": ("crop:canny:",)}, "names no file"),
        ({"hint": ("canny:200:100:a",)}, "first threshold is above"),
        ({"control_start": (0.5,)}, "control_start needs hint"),
        ({"guess_mode": True}, "guess_mode needs hint"),
        ({"hint": ("a",), "control_start": (0.5,), "control_end": (0.5,)}, "end must be later"),
        ({"hint": ("a",), "control_end": (0.1, 0.2)}, "one for each hint"),
        ({"hint": ("a",), "control_end": (1.5,)}, "from 0 to 1"),
    ],
)
def test_what_cannot_be_is_refused(values, words):
    with pytest.raises(cfg.ConfigError, match=words):
        ControlHints(**values)


@pytest.mark.parametrize(
    ("control", "hint", "words"),
    [
        (("a",), (), "hint is missing: control names 1 ControlNet,"),
        ((), ("a.png",), "hint needs control"),
        (("a", "b"), ("a.png",), "names 1 pictures, but control 2"),
    ],
)
def test_one_hint_for_each(control, hint, words):
    with pytest.raises(cfg.ConfigError, match=words):
        check_hints(control, ControlHints(hint))


def test_other_proportions():
    """Cropped to the middle; filled up with the median of the border, of edges with black."""
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16], wide[2:6, 10:14] = 90, 255
    middle = shown(wide, HintChoice.parse("crop:a"), (16, 16))
    np.testing.assert_array_equal(middle, resized(wide[:, 8:16], (16, 16)))
    for hint, colour in (("fill:a", 0), ("fill:canny:a", 0)):
        found = shown(wide + np.uint8(0), HintChoice.parse(hint), (24, 24))
        assert found.shape == (24, 24, 3) and found[8:16].any()
        assert np.all(found[:8] == colour) and np.all(found[16:] == colour)
    with_border = np.full((8, 24, 3), 40, np.uint8)
    assert np.all(shown(with_border, HintChoice.parse("fill:a"), (24, 24)) == 40)
    assert shown(wide, HintChoice.parse("a"), (16, 16)).shape == (16, 16, 3)


def _numbers(count, window, guess_mode=False, pooled=False):
    process = build_process(cfg.Discrete())
    visited = levels(process, count, "trailing", "one")
    hints = Hints((), (window,), guess_mode)
    branch = replace(cfg.ControlBranch(), global_pool=pooled)
    found = control_numbers([branch], [ControlChoice(Path("a"), 0.5)], hints, visited, process)
    return found, np.asarray(visited.timestep, np.float64)


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.0, 0.61), (0.33, 1.0), (0.25, 0.75), (0.1, 0.9)])
@pytest.mark.parametrize("count", [4, 7, 20])
def test_steps_in_which_it_acts(count, window):
    numbers, steps = _numbers(count, window)
    first, last = numbers.times[0]
    for i in range(count):
        off = i / count < window[0] or (i + 1) / count > window[1]
        assert (last < steps[i] <= first) != off
        # What a solver evaluates within a step is of this step.
        between = (steps[i] + steps[i + 1]) / 2
        assert (last < between <= first) != off


def test_no_step_is_refused():
    with pytest.raises(cfg.ConfigError, match="none of 4 steps lies whole"):
        _numbers(4, (0.3, 0.4))


def test_guess_mode_and_means_act_on_the_condition_alone():
    plain, _ = _numbers(4, (0.0, 1.0))
    assert np.all(plain.uncond[0] == 0.5) and np.all(plain.cond[0] == 0.5)
    guess, _ = _numbers(4, (0.0, 1.0), guess_mode=True)
    assert not guess.uncond[0].any()
    np.testing.assert_allclose(guess.cond[0][[0, -1]], [0.05, 0.5], rtol=1e-6)
    mean, _ = _numbers(4, (0.0, 1.0), guess_mode=True, pooled=True)
    assert not mean.uncond[0].any() and np.all(mean.cond[0] == 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a ControlNet with numbers and a fresh one, and a hint."""
    folder = tmp_path_factory.mktemp("control")
    tokenizer = clip_files.write_clip(folder / "tokenizer")
    numbers = jax.tree.map(lambda leaf: 0.1 * leaf, small.numbers(CONFIG))
    write_native(imported_model.make(CONFIG, numbers, tokenizer=tokenizer), folder / "model")
    random = np.random.default_rng(0)
    shapes = imported_model.control_shapes(BRANCH)
    params = jax.tree.map(
        lambda leaf: (0.3 * random.standard_normal(leaf.shape)).astype(np.float32), shapes
    )
    write_control(ImportedControl(BRANCH, params, "a", {}), folder / "net", "diffusers")
    for part in ("controlnet_down_blocks", "controlnet_mid_block"):
        params[part] = jax.tree.map(np.zeros_like, params[part])
    write_control(ImportedControl(BRANCH, params, "a", {}), folder / "fresh", "diffusers")
    pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "hint.png")
    return folder


def test_drawing(folder, tmp_path):
    plain = ldm_jax.open(folder / "model").draw(CAT, **HOW)[0].array
    hint = str(folder / "hint.png")
    fresh = ldm_jax.open(folder / "model", control=folder / "fresh")
    np.testing.assert_array_equal(fresh.draw(CAT, hint=hint, **HOW)[0].array, plain)

    model = ldm_jax.open(folder / "model", control=[f"{folder}/net:5.0"])
    sample = model.draw(CAT, hint=[hint], **HOW)[0]
    assert np.any(sample.array != plain)
    assert sample.request.hints.hint == (hint,)
    # Of the size of its hint where none is named.
    small_how = {name: value for name, value in HOW.items() if name not in ("height", "width")}
    np.testing.assert_array_equal(model.draw(CAT, hint=[hint], **small_how)[0].array, sample.array)
    sample.save(tmp_path / "one.png")
    said = json.loads(read_png(tmp_path / "one.png")["ldm_jax"])["request"]
    assert said["control"] == [f"{folder}/net:5.0"] and said["hint"] == [hint]

    with pytest.raises(cfg.ConfigError, match="hint is missing"):
        model.draw(CAT, **HOW)
    with pytest.raises(cfg.ConfigError, match="hint names 2 pictures"):
        model.draw(CAT, hint=[hint, hint], **HOW)
    with pytest.raises(cfg.ConfigError, match="see the whole picture"):
        model.draw(CAT, hint=[hint], unet_tile=16, **HOW)


def test_one_of_another_width_is_refused(folder, tmp_path):
    other = replace(BRANCH, unet=replace(BRANCH.unet, context_dim=96))
    params = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, np.float32), imported_model.control_shapes(other)
    )
    write_control(ImportedControl(other, params, "a", {}), tmp_path / "net", "diffusers")
    with pytest.raises(ConvertError, match="text of width 96; this model"):
        ldm_jax.open(folder / "model", control=tmp_path / "net")
