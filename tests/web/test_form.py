"""Forms, and what is asked with them: all settings are derived, none is typed twice or ignored."""

from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from ldm_jax.config import ConfigError
from ldm_jax.config.request import Request, needs, paths, settings
from ldm_jax.web import form as forms
from ldm_jax.web.gallery import INPUTS, Gallery
from ldm_jax.web.limits import Limits
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.refused import Refused, field_of
from ldm_jax.web.services import request_of

SIDE = {"multiple": 8, "one_size": False, "default": 64}
FACTS = {
    "inputs": ["caption", "label", "edit_image", "edit_given", "low_res", "noise_level"],
    "noise_levels": 350, "sides": {"height": SIDE, "width": SIDE}, "classes": 10,
    "usual": {"steps": 25, "mask_blur": 4.0}, "usual_masked": {}, "token_limit": 16,
    "is_inpainting": False, "clip": True, "words": [],
}  # fmt: skip
"""Of a model that has everything."""


@pytest.fixture
def services(tmp_path):
    for name in ("a/one.safetensors", "a/b/two.ckpt", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    guide = tmp_path / "a/guide"
    guide.mkdir()
    (guide / "config.json").write_text('{"type": "ClassifierRun"}')
    with closing(Gallery(tmp_path / "out")) as gallery:
        yield ModelList([tmp_path / "a"]), gallery, Limits(max_pictures=8)


def asked(services, values, sent=None, model="one.safetensors"):
    models, gallery, limits = services
    return request_of(values, model, sent or {}, models=models, gallery=gallery, limits=limits)


def refused(services, values, **more):
    with pytest.raises(Refused) as caught:
        asked(services, values, **more)
    ((field, message),) = caught.value.errors
    return field, message


def test_every_setting_has_its_place(services):
    given = {*forms.all_options()}
    assert given | {*forms.ABSENT, *forms.AS_DATA} == {*settings()}
    assert {*paths()} == {*forms.AS_DATA, *forms.BY_NAME} | ({*forms.ABSENT} & {*paths()})
    models, _, limits = services
    made = forms.form("one.safetensors", FACTS, models, limits)
    assert made["picture_formats"]["WebP"] == "image/webp"
    assert [file["name"] for file in made["files"]] == ["low_res", "edit_image"]
    assert made["files"][1]["help"] == "Editing: the picture to edit, as the prompt says."
    listed = made["settings"]
    assert {s["name"] for s in listed} == given
    for s in listed:
        assert s["type"] in ("number", "integer", "text", "choice", "flag") and s["help"], s
        assert s["needs"] == needs().get(s["name"])
        assert s["group"] == "main" or s["heading"], s
    by_name = {s["name"]: s for s in listed}
    assert (by_name["steps"]["default"], by_name["steps"]["most"]) == (25, limits.max_steps)
    assert (by_name["strength"]["least"], by_name["strength"]["most"]) == (0.0, 1.0)
    by_side = [(0, 0), (32, 1), (64, 2), (96, 3), (128, by_name["mask_blur"]["default"])]
    assert by_name["mask_blur"]["default_by_side"] == by_side
    assert by_name["classes"]["most"] == 9 and by_name["classes"]["many"]
    assert by_name["weak_model"]["choices"] == ["b/two.ckpt", "one.safetensors"]
    assert by_name["classifier"]["choices"] == ["guide"]
    assert "ddim" in by_name["sampler"]["choices"]


def test_a_model_shows_the_settings_that_it_has(services):
    models, _, limits = services

    def names(**changes):
        made = forms.form("x", FACTS | changes, models, limits)
        return {s["name"] for s in made["settings"]}

    assert not {"prompt", "clip_skip"} & names(inputs=["label"])
    assert not {"prompt", "classes", "guidance_scale"} & names(inputs=[])
    one_size = SIDE | {"one_size": True}
    assert "height" not in names(sides={"height": one_size, "width": one_size})
    assert "resample" not in names(is_inpainting=True)


def test_needs_are_those_that_requests_have():
    """Each with a value that is not its default, alone."""
    values = {"mask": "a", "mask_blur": 1.0, "invert_mask": True, "only_masked": 1,
              "latents_row": 1, "strength": 0.5, "resample": 2, "corrector_steps": 2, "snr": 0.1,
              "resample_jump": 2, "autoguidance_scale": 2.0, "classifier_scale": 2.0,
              "classifier_form": "eps", "noise_level": 20, "control_start": [0.5],
              "control_end": [0.5], "guess_mode": True}  # fmt: skip
    assert {*values} == {*needs()}
    for name, value in values.items():
        with pytest.raises(ValueError, match=f"{name}.* need.*{needs()[name].split('_')[0]}"):
            Request.from_dict({name: value})


def test_what_is_asked_becomes_a_request(services):
    models, gallery, _ = services
    picture = Image.fromarray(np.full((16, 8, 3), 7, np.uint8))
    sent = {"init_image": picture, "mask": Image.new("L", picture.size, 255)}
    values = {"prompt": ["a"], "steps": 3, "strength": 0.5, "weak_model": "b/two.ckpt"}
    request = asked(services, values, sent)
    assert request.model.model == models.find("one.safetensors").path
    assert request.model.weak_model == models.find("b/two.ckpt").path
    assert request.setting("steps") == 3
    kept = request.picture.init_image
    assert kept.parent == gallery.out / INPUTS
    np.testing.assert_array_equal(np.asarray(Image.open(kept)), np.asarray(picture))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"stepps": 3}, "stepps"), ({"steps": "3"}, "steps"), ({"steps": 10**9}, "steps"),
        ({"num": 9}, "num"), ({"prompt": ["a"] * 9}, "num"), ({"prompt": ["x" * 10**5]}, "prompt"),
        ({"steps": 999, "resample": 2}, "resample"), ({"height": 8000, "width": 8000}, "height"),
        ({"model": "/etc"}, "model"), ({"tokenizer": "/etc"}, "tokenizer"),
        ({"latents": "/etc/passwd"}, "latents"), ({"init_image": "/etc/passwd"}, "init_image"),
        ({"weak_model": "../one.safetensors"}, "weak_model"), ({"vae": 3}, "vae"),
        ({"classifier": "one.safetensors"}, "classifier"), ({"prompt": "\ud800"}, "prompt"),
        ({"prompt": ["a"], "classes": [1]}, "classes"), ({"strength": 0.5}, "strength"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_its_field(services, values, field, tmp_path):
    assert refused(services, values)[0] == field
    assert not [*(tmp_path / "out" / INPUTS).iterdir()]


def test_one_text_is_a_list_of_one_and_json_has_lists(services):
    assert asked(services, {"prompt": "a red three"}).prompt == ("a red three",)
    _, message = refused(services, {"prompt": {"text": "a"}})
    assert "a list" in message and "tuple" not in message


def test_only_a_sentence_about_a_setting_names_it():
    for message, field in (
        ("height is 3; it must be more", "height"), ("mask_blur needs mask, a file", "mask_blur"),
        ("--classes=3: there is none", "classes"), ("the model draws no prompt", None),
        ("override_settings is for a model", None),
    ):  # fmt: skip
        assert field_of(ConfigError(message), message) == field


def test_models_go_by_their_names_alone(services, tmp_path):
    for name in ("three", "/etc/passwd", "../a/one.safetensors", "a/notes.txt", ""):
        field, message = refused(services, {}, model=name)
        assert field == "model" and "/etc" not in message.replace(repr(name), "")
    (tmp_path / "a/three.pt").touch()  # later ones appear by themselves
    assert asked(services, {}, model="three.pt").model.model.name == "three.pt"
