"""One request in all its forms: command line, text in a PNG, record; every setting in each."""

import json

import numpy as np
import pytest

from ldm_jax import config as cfg
from ldm_jax.cli import sample
from ldm_jax.cli.sample_arguments import parse
from ldm_jax.config import request as requests
from ldm_jax.images.sample_writer import SampleWriter

BASE = {
    "model": "models/a", "prompt": ["a red three alone"], "sampler": "ddim", "steps": 4,
    "guidance_scale": 2.0, "spacing": "trailing", "height": 16, "width": 24,
}  # fmt: skip
"""Of a request that has been resolved."""
PICTURE = {"init_image": "a.png", "strength": 0.5}
MASK = PICTURE | {"mask": "b.png"}
LISTED = {"spacing": None, "steps": None}
VALUES = {
    "prompt": ["a blue one,\nalone: (café:1.2)"],
    "classes": {"prompt": [], "classes": [3]},
    "negative_prompt": 'two: "three"',
    "unknown_words": "skip",
    "num": 2,
    "first_prompt": 3,
    "first_image": 65535,
    "sampler": "euler_a",
    "steps": 7,
    "guidance_scale": 3.25,
    "image_guidance_scale": 1.25,
    "guidance_schedule": "cosine",
    "guidance_interval": [0.1, 5.0],
    "guidance_rescale": 0.7,
    "autoguidance_scale": {"autoguidance_scale": 1.5, "weak_model": "w"},
    "classifier_scale": {"prompt": [], "classes": [3], "classifier_scale": 2.0, "classifier": "c"},
    "classifier_form": {"prompt": [], "classes": [3], "classifier_form": "mean", "classifier": "c"},
    "threshold": 0.995,
    "resample": MASK | {"resample": 3},
    "resample_jump": MASK | {"resample": 3, "resample_jump": 2},
    "eta": 0.3,
    "spacing": "leading",
    "sections": LISTED | {"sections": [3, 1]},
    "timesteps": LISTED | {"timesteps": [900.5, 3.0]},
    "sigmas": LISTED | {"sigmas": [14.0, 0.5, 0.0]},
    "corrector": "langevin",
    "corrector_steps": {"corrector": "annealed_langevin", "corrector_steps": 2},
    "snr": {"corrector": "langevin", "snr": 0.3},
    "seed": 4294967295,
    "height": 32,
    "width": 8,
    "strength": PICTURE,
    "batch_size": 3,
    "tile": 64,
    "unet_tile": 48,
    "init_image": PICTURE,
    "mask": MASK,
    "mask_blur": MASK | {"mask_blur": 0.0},
    "invert_mask": MASK | {"invert_mask": True},
    "only_masked": MASK | {"only_masked": 0},
    "latents": {"latents": "noise.npy"},
    "latents_row": {"latents": "noise.npy", "latents_row": 5},
    "low_res": {"low_res": "small.png"},
    "noise_level": {"low_res": "small.png", "noise_level": 30},
    "class_map": {"class_map": "map.png"},
    "boxes": {"boxes": "boxes.json"},
    "edit_image": {"edit_image": "photo.png"},
    "depth": {"depth": "depth.npy"},
    "hint": {"control": ["a:1.0", "b:2.0"], "hint": ["a.png", "canny:50:150:b.png"]},
    "control_start": {"control": ["a:1.0"], "hint": ["a.png"], "control_start": [0.25]},
    "control_end": {"control": ["a:1.0"], "hint": ["a.png"], "control_end": [0.75]},
    "guess_mode": {"control": ["a:1.0"], "hint": ["a.png"], "guess_mode": True},
    "model": "../models/ä b",
    "weights": "raw",
    "variant": "fp16",
    "dtype": "bfloat16",
    "tokenizer": "words",
    "prediction": "v",
    "original_config": "v1.yaml",
    "vae": "other",
    "text_encoder": "clip",
    "clip_skip": 2,
    "tileable": True,
    "literal_prompts": True,
    "lora": ["loras/ä.safetensors:0.5:1.0", "b:-0.25"],
    "lora_dir": {"prompt": ["a <lora:x>"], "lora_dir": "loras"},
    "hypernetwork": ["h.pt:0.5"],
    "hypernetwork_dir": {"prompt": ["a <hypernet:x>"], "hypernetwork_dir": "nets"},
    "embeddings": ["words/ä.pt", "b.safetensors"],
    "embeddings_dir": "words",
    "control": {"control": ["nets/ä:0.5"], "hint": ["a.png"]},
    "weak_model": {"weak_model": "w/checkpoints/5", "autoguidance_scale": 3.0},
    "classifier": {"prompt": [], "classes": [0], "classifier": "c"},
}
"""For each setting a value that is not its default, or all that it needs beside it."""


def request_with(name):
    value = VALUES[name]
    return BASE | (value if isinstance(value, dict) else {name: value})


def words(values):
    """The command line that says `values`."""
    said = []
    for name, value in values.items():
        if isinstance(value, list):
            said += [f"--{name}", *map(str, value)]
        elif isinstance(value, bool):
            said.append(f"--{name}" if value else f"--no-{name}")
        elif value is not None:
            said.append(f"--{name}={value}")
    return said


def test_the_table_has_every_setting():
    assert list(VALUES) == list(requests.settings())
    default = cfg.Request()
    for name in VALUES:
        given = cfg.Request.from_dict(request_with(name))
        assert given.setting(name) != default.setting(name), name


@pytest.mark.parametrize("name", requests.settings())
def test_every_setting_goes_from_command_to_picture_to_command(name, tmp_path):
    asked = parse(words(request_with(name))).request
    assert asked == cfg.Request.from_dict(request_with(name))
    assert cfg.Request.from_dict(json.loads(json.dumps(asked.to_dict()))) == asked
    image = np.zeros((4, 4, 3), np.uint8)
    place, number = len(asked.conditions) - 1, asked.num - 1
    with SampleWriter(tmp_path / "out", asked, 1, origin={}, versions={}) as writer:
        writer.write(image, place, number)
    (picture,) = (tmp_path / "out").glob("[0-9]*.png")
    again = parse([f"--from_png={picture}"])
    assert again.request == asked.one(place, number)
    # What is given goes before what the picture says.
    assert parse([f"--from_png={picture}", "--seed=5"]).request.sampling.seed == 5


def test_the_numbers_of_a_drawing_compile_nothing_and_all_else_does():
    sampling = cfg.Request.from_dict(BASE).sampling
    for name in vars(sampling):
        changed = cfg.Request.from_dict(request_with(name)).sampling
        if getattr(changed, name) == getattr(sampling, name):
            continue
        numbers = {"strength", "seed", "eta", "steps", "sections", "timesteps", "sigmas",
                   "spacing", "threshold", "batch_size", "tile", "guidance_scale",
                   "guidance_interval", "guidance_rescale", "autoguidance_scale",
                   "classifier_scale", "image_guidance_scale"}  # fmt: skip
        assert (changed.program == sampling.program) == (name in numbers), name


def test_usual_values_are_not_carried_over_to_another_sampler(tmp_path):
    asked = cfg.Request.from_dict({"model": "a", "classes": [3], "steps": 3})
    drawn = asked.changed(sampler="ddim", eta=0.0, spacing="leading", height=16, width=16)
    filled = drawn.to_dict().keys() - asked.to_dict().keys()
    with SampleWriter(tmp_path / "out", drawn, 1, filled=filled, origin={}, versions={}) as writer:
        writer.write(np.zeros((4, 4, 3), np.uint8), 0, 0)
    picture = f"--from_png={tmp_path / 'out' / '0000_0000.png'}"
    assert parse([picture]).request == drawn == parse([picture, "--seed=0"]).request
    other = parse([picture, "--sampler=euler_a"]).request.sampling
    assert (other.sampler, other.steps, other.eta, other.spacing) == ("euler_a", 3, None, None)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"stpes": 3}, "'stpes' is no setting of a drawing; perhaps you meant 'steps'"),
        ({"steps": "3"}, "steps is '3'; it must be None or a whole number"),
        ({"seed": True}, "seed is True; it must be a whole number"),
        ({"prompt": "a"}, "prompt is 'a'; it must be a tuple, each entry text"),
        ({"prompt": ["\ud800"]}, "prompt .* is not text that UTF-8 can hold"),
        ({"model": "caf\udce9"}, "model .* is not text that UTF-8 can hold"),
        ({"classes": [1], "prompt": ["a"]}, "not both"),
        ({"unknown_words": "ask"}, "unknown_words is 'ask'; it must be one of refuse, skip"),
        ({"num": 0}, "num is 0; it must be 1 or more"),
        ({"num": 65536, "first_image": 1}, "at most 65536 of each"),
        ({"num": 65536, "prompt": ["a"] * 17}, "at most 1048576 pictures"),
        ({"dtype": "float64"}, "dtype is 'float64'; it must be one of float32, bfloat16"),
        ({"mask": "m.png"}, "mask needs init_image"),
        ({"mask_blur": 2.0}, "mask_blur needs mask"),
        ({"latents_row": 1}, "latents_row needs latents"),
        ({"strength": 0.5}, "strength needs init_image"),
        ({"resample": 2}, "needs mask"),
        ({"resample_jump": 2}, "resample_jump is 2, which needs resample above 1"),
        ({"snr": 0.2}, "snr is 0.2, which needs a corrector"),
        ({"autoguidance_scale": 2.0}, "autoguidance_scale needs weak_model"),
        ({"classifier": "c"}, "name them in the setting classes"),
        ({"negative_prompt": "a", "guidance_scale": 1}, "nothing leads away"),
        ({"threshold": 0.0}, "threshold is 0.0; .* above 0 and at most 1"),
        ({"classifier_scale": -1.0, "classifier": "c", "classes": [1]}, "at least 0 and"),
        ({"guidance_scale": 1e30}, r"guidance_scale is 1e\+30; .* least -1000 and at most 1000"),
        ({"eta": 1e30}, "^eta is .* at least 0 and at most 10"),
        ({"corrector": "langevin", "corrector_steps": 10**9}, "at least 1 and at most 1000"),
        ({"width": 100_000_000}, "width is 100000000; .* at least 1 and at most 65536"),
        ({"width": 65536, "height": 65536}, "their product"),
        ({"batch_size": 10**9}, "their product"),
        ({"steps": 10**9}, "steps is 1000000000; .* at most 100000"),
        ({"steps": 5, "sections": [2, 2]}, "steps is 5, but 4 levels are listed"),
        ({"guidance_interval": [1.0]}, "two numbers of at least 0, low < high"),
        *(
            ({name: value}, f"{name} is {value}; it must")
            for value in (float("nan"), float("inf"))
            for name in ("guidance_scale", "eta", "threshold", "guidance_rescale")
        ),
    ],
)
def test_what_cannot_be_is_refused_by_name(values, complaint):
    with pytest.raises(cfg.ConfigError, match=complaint):
        cfg.Request.from_dict(values)


@pytest.fixture(scope="module")
def everything(trained_text2img, tmp_path_factory):
    """A drawing with as many settings as can be together, and its command line."""
    earlier = trained_text2img / "checkpoints" / "20"
    common = words(
        {
            "model": str(trained_text2img), "prompt": ["a red three alone"], "num": 2, "seed": 5,
            "sampler": "ddpm", "sections": [2, 1], "corrector": "langevin", "corrector_steps": 2,
            "snr": 0.1, "guidance_scale": 2.0, "guidance_schedule": "cosine",
            "guidance_interval": [0.01, 50.0], "guidance_rescale": 0.5, "threshold": 0.9,
            "weak_model": str(earlier), "negative_prompt": "a blue one alone", "batch_size": 2,
            "dtype": "bfloat16", "weights": "raw", "tile": 16,
        }
    )  # fmt: skip
    out = tmp_path_factory.mktemp("everything") / "out"
    sample.draw(parse([*common, f"--out={out}"]))
    return out, common


def test_a_drawing_of_many_settings_is_drawn_again_from_its_picture(everything, tmp_path):
    out, _ = everything
    sample.draw(parse([f"--from_png={out / '0000_0001.png'}", f"--out={tmp_path / 'again'}"]))
    again = (tmp_path / "again" / "0000_0001.png").read_bytes()
    assert again == (out / "0000_0001.png").read_bytes()


def test_a_drawing_of_many_settings_is_drawn_again_from_a_record(everything, tmp_path, capsys):
    _, common = everything
    record = sample.benchmark(parse([*common, f"--out={tmp_path / 'record'}", "--benchmark"]))
    assert sample.verify(parse([f"--verify={record}"]))
    assert "bit-equal" in capsys.readouterr().out
