"""The fields of the community's API: those that its clients send are known, and none is ignored."""

import inspect

import numpy as np
import pytest
from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody
from webuiapi import WebUIApi

from ldm_jax.config.request import Request, settings
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.refused import Refused
from ldm_jax.web.sdapi import request_fields as fields
from ldm_jax.web.sdapi.filling import fill
from ldm_jax.web.sdapi.sampler_names import samplers, schedulers
from ldm_jax.web.sdapi.sampler_names import settings_of as sampler_settings
from ldm_jax.web.sdapi.server_options import MODEL, Options, changed
from ldm_jax.web.sdapi.translation import NAMES, renamed, settings_of

OF_THE_CLIENT = {
    "self", "controlnet_units", "adetailer", "animatediff", "roop", "reactor", "sag",
    "use_deprecated_controlnet", "use_async", "images", "mask_image",
}  # fmt: skip
"""Arguments of webuiapi that it does not send under these names."""
USED = fields.USED | fields.USED_OF_PICTURES
CHANGED = {
    "prompt": ("a", {"prompt": ["a"]}), "negative_prompt": ("b", {"negative_prompt": "b"}),
    "steps": (7, {"steps": 7}), "cfg_scale": (3, {"guidance_scale": 3.0}),
    "width": (64, {"width": 64}), "height": (32, {"height": 32}),
    "sampler_name": ("DDIM", {"sampler": "ddim", "spacing": "ddim_uniform"}),
    "sampler_index": ("Heun", {"sampler": "heun"}),
    "scheduler": ("Karras", {"spacing": "karras"}), "eta": (0.5, {"eta": 0.5}),
    "denoising_strength": (0.25, {"strength": 0.25}), "tiling": (True, {"tileable": True}),
    "mask_blur": (2, {"mask_blur": 2.0}), "inpainting_mask_invert": (1, {"invert_mask": True}),
    "inpaint_full_res_padding": (8, {"only_masked": 8}),
}  # fmt: skip
"""Fields that are settings: another value, and the settings that it gives."""
ELSEWHERE = {
    "seed", "batch_size", "n_iter", "override_settings", "override_settings_restore_afterwards",
    "save_images", "send_images", "init_images", "mask", "mask_blur_x", "mask_blur_y",
    "inpainting_fill", "inpaint_full_res", "include_init_images", "resize_mode",
}  # fmt: skip
"""Fields that say something of several pictures, of their files, or of the answer; the tests of the
server have them."""


def refused(given, is_img2img=True):
    with pytest.raises(Refused) as caught:
        fields.check(given, is_img2img)
    assert caught.value.status == 422
    return [field for field, _ in caught.value.errors]


def test_what_clients_send_is_known():
    known = {*USED, *fields.WITHOUT_EFFECT, *fields.NEUTRAL, *fields.NEUTRAL_OF_PICTURES,
             fields.SCRIPTS}  # fmt: skip
    for method in (WebUIApi.txt2img, WebUIApi.img2img):
        assert {*inspect.signature(method).parameters} - OF_THE_CLIENT <= known
    for given in (DiffusionRequestBody(), DiffusionRequestBody(force_task_id="task(a-B)")):
        fields.check(given.to_dict(), is_img2img=False)
        fields.check(given.to_dict(), is_img2img=True)


@pytest.mark.parametrize("name", {**fields.NEUTRAL, **fields.NEUTRAL_OF_PICTURES})
def test_what_is_not_here_is_refused_but_for_neutral_values(name):
    neutral = (fields.NEUTRAL | fields.NEUTRAL_OF_PICTURES)[name]
    for value in (*neutral, None):
        fields.check({name: value}, is_img2img=True)
    assert refused({name: {"other": "value"}}) == [name]
    assert refused({name: 0.123}) == [name]


def test_unknown_fields_scripts_and_wrong_types_are_named():
    assert refused({"stepps": 3, "steps": "3.5", "seed": True}) == ["stepps", "steps", "seed"]
    assert refused({"hr_scale": "two", "cfg_scale": "nan"}) == ["hr_scale", "cfg_scale"]
    found = fields.check({"steps": "10", "seed": 4.0, "cfg_scale": "3.5"}, is_img2img=False)
    assert [found[name] for name in ("steps", "seed", "cfg_scale")] == [10, 4, 3.5]
    fields.check({"alwayson_scripts": {"ADetailer": {"args": []}}}, is_img2img=False)
    script = {"alwayson_scripts": {"ADetailer": {"args": [{"model": "x"}]}}}
    assert refused(script) == ["alwayson_scripts.ADetailer"]
    assert refused({"init_images": ["data"]}, is_img2img=False) == ["init_images"]


def test_every_field_says_something():
    assert {*CHANGED, *ELSEWHERE} == {*USED}
    base = {"mask": "there"}
    before = settings_of(fields.check(base, is_img2img=True))
    for name, (value, expected) in CHANGED.items():
        found = settings_of(fields.check(base | {name: value}, is_img2img=True))
        assert {n: v for n, v in found.items() if before.get(n) != v} == expected, name
    assert {*before, *NAMES} <= {*settings()}


def test_samplers_and_schedulers_have_the_web_uis_names():
    names = {one["name"]: one["aliases"][0] for one in samplers()}
    for name, ours in names.items():
        for scheduler in (s["name"] for s in schedulers()):
            if scheduler in ("automatic", "normal"):
                found = sampler_settings(name, scheduler, 20)
                assert found["sampler"] == ours
                Request.from_dict(found)
    assert sampler_settings("Euler a", "Normal", 20)["spacing"] == "linspace"
    assert sampler_settings("DPM++ 2M", "automatic", 20)["spacing"] == "karras"
    assert sampler_settings("DPM++ 2M Karras", "", 20)["spacing"] == "karras"
    for name in ("dpm++ 2m karras", "DPMPP_2M KARRAS"):
        assert sampler_settings(name, "", 20) == {"sampler": "dpmpp_2m", "spacing": "karras"}
    assert sampler_settings("ddim", "karras", 20) == {"sampler": "ddim", "spacing": "karras"}
    for sampler, scheduler, field in (("Restart", "", "sampler_name"), ("Euler", "x", "scheduler")):
        with pytest.raises(Refused) as caught:
            sampler_settings(sampler, scheduler, 20)
        assert caught.value.errors[0][0] == field


def test_models_are_called_by_their_names_or_clear_parts_of_them(tmp_path):
    for name in ("demo/text2img", "text2img", "other/x.safetensors", "more/x.ckpt", "v.ckpt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir()
        if not path.suffix:
            (path / "model.json").touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    models = ModelList([tmp_path, tmp_path / "demo"])
    assert len(models.drawing) == 5
    for given, name in (
        ("text2img", "text2img"), ("demo/text2img", "demo/text2img"), ("v", "v.ckpt"),
        ("v.ckpt [abc123]", "v.ckpt"), ("x.ckpt", "more/x.ckpt"),
        ("other/x", "other/x.safetensors"),
    ):  # fmt: skip
        assert changed(Options(), {MODEL: given}, models).checkpoint == name
    with pytest.raises(Refused, match="more/x.ckpt, other/x.safetensors"):
        changed(Options(), {MODEL: "x"}, models)


def test_models_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / name / "text2img" for name in ("a", "b", "c", "d/b")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "model.json").touch()
    names = [entry.name for entry in ModelList(folders).drawing]
    assert names == ["text2img", "b/text2img", "c/text2img", "d/b/text2img"]


def test_colours_run_under_the_mask():
    image = np.zeros((7, 9, 3), np.uint8)
    image[:, :4], image[:, 4:] = (200, 0, 0), (0, 0, 100)
    masked = np.zeros((7, 9), bool)
    masked[2:5, 1:3] = True
    filled = fill(np.where(masked[..., None], np.uint8(255), image), masked)
    np.testing.assert_array_equal(filled[~masked], image[~masked])
    np.testing.assert_allclose(filled[masked], [[200, 0, 0]] * masked.sum(), atol=60)
    everywhere = np.ones((7, 9), bool)
    np.testing.assert_array_equal(fill(image, everywhere), image)


def test_files_that_models_are_conditioned_on_are_the_argument_of_a_script():
    def given(*args):
        return {"alwayson_scripts": {fields.FILES_SCRIPT: {"args": [*args]}, "x": {"args": []}}}

    where = f"{fields.SCRIPTS}.{fields.FILES_SCRIPT}"
    shown = {"low_res": "data", "noise_level": 20, "boxes": None}
    for is_img2img in (False, True):
        found = fields.check(given(shown), is_img2img)
        assert found.shown == {"low_res": "data", "noise_level": 20}
        assert settings_of(found)["noise_level"] == 20 and "low_res" not in settings_of(found)
        assert fields.check(given(), is_img2img).shown == {}
    assert refused(given({"mask": "data"})) == [f"{where}.mask"]
    assert refused(given({}, {})) == refused(given("low_res")) == [where]
    error = renamed(Refused(422, ("low_res", "low_res is not base64")))
    assert error.errors == ((f"{where}.low_res", f"{where}.low_res is not base64"),)
