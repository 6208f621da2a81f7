"""What prompts name beside a model, over HTTP: adapters, hypernetworks and words of embeddings."""

import base64
import io
import json
import threading
from types import SimpleNamespace

import browser
import numpy as np
import pytest
import requests
import small_tunings
from PIL import Image
from selenium.webdriver.support.ui import WebDriverWait

from ldm_jax.config import ConfigError
from ldm_jax.images.picture_text import read_written
from ldm_jax.web.app import make_app, make_services
from ldm_jax.web.arguments import parse
from ldm_jax.web.gallery import Gallery
from ldm_jax.web.model_list import ModelList
from ldm_jax.web.serving import listen, make_server

SMALL = {"width": 16, "height": 16, "steps": 2, "cfg_scale": 2.0, "seed": 5,
         "sampler_name": "DDIM", "eta": 0.0}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server in this process."""
    folder = tmp_path_factory.mktemp("tunings")
    small_tunings.write_all(folder)
    arguments = parse([
        f"--models={folder / 'model'}", f"--lora_dir={folder / 'loras'}", "--port=0",
        f"--hypernetwork_dir={folder / 'nets'}", f"--embeddings_dir={folder / 'words'}",
        f"--control={folder / 'net'}", f"--out={folder / 'out'}",
    ])  # fmt: skip
    models = ModelList(arguments.models, arguments.tunings)
    services = make_services(models, Gallery(arguments.out), arguments.limits)
    socket = listen(arguments.host, 0)
    found = make_server(make_app(services, arguments), arguments.limits)
    thread = threading.Thread(target=found.run, kwargs={"sockets": [socket]})
    services.worker.start()
    thread.start()
    yield SimpleNamespace(
        url=f"http://127.0.0.1:{socket.getsockname()[1]}", folder=folder, services=services
    )
    found.should_exit = True
    thread.join()
    services.worker.close()
    services.gallery.close()


def get(server, path, **how):
    return requests.get(f"{server.url}{path}", how)


def drawn(server, prompt, **more):
    answer = requests.post(f"{server.url}/sdapi/v1/txt2img", json=SMALL | {"prompt": prompt} | more)
    assert answer.status_code in (200, 422), answer.text
    return answer.json()


def test_what_there_is_is_listed(server):
    before = get(server, "/sdapi/v1/embeddings").json()
    assert {*before["loaded"]} == {"zork", "wide"} and before["skipped"] == {}
    assert drawn(server, "a cat")["images"]
    after = get(server, "/sdapi/v1/embeddings").json()
    word = {"step": None, "sd_checkpoint": None, "sd_checkpoint_name": None}
    assert after == {
        "loaded": {"zork": word | {"shape": small_tunings.small.CLIP.width, "vectors": 2}},
        "skipped": {"wide": word | {"shape": 768, "vectors": 2}},
    }
    assert get(server, "/sdapi/v1/hypernetworks").json() == [{"name": "hyper", "path": "hyper"}]
    form = get(server, "/api/form", model="model").json()
    named = [form[name] for name in ("adapters", "hypernetworks", "words")]
    assert named == [["style"], ["hyper"], ["zork"]]


def test_prompts_name_them(server):
    prompts = ["a cat", "a zork", "a cat <hypernet:hyper:0.5>", "a cat <lora:style>"]
    pictures = [drawn(server, prompt)["images"][0] for prompt in prompts]
    assert len({*pictures}) == 4
    assert drawn(server, "a cat")["images"][0] == pictures[0]
    assert drawn(server, "a cat", negative_prompt="zork")["images"][0] != pictures[0]
    text = {"model": "model", "text": "a zork <hypernet:hyper>"}
    counted = requests.post(f"{server.url}/api/tokens", json=text).json()
    assert counted["count"] == 3


def test_a_picture_names_only_the_folders_that_it_needs(server):
    for prompt, folder in (
        ("a cat", None), ("a zork", "embeddings_dir"), ("<lora:style>", "lora_dir"),
        ("<hypernet:hyper>", "hypernetwork_dir"),
    ):  # fmt: skip
        drawn(server, prompt, save_images=True)
        (name, *_) = server.services.gallery.names()
        found = read_written(server.services.gallery.path(name)).request.to_dict()
        assert [n for n in found if n.endswith("_dir")] == ([folder] if folder else [])


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<hypernet:../nets/hyper>", "no such hypernetwork in"),
        ("<hypernet:hyper:much>", "'much' is no strength"),
        ("<lora:/etc/passwd>", "no such adapter in"),
    ],
)
def test_refusals_name_the_prompt(server, prompt, message):
    (error,) = drawn(server, f"a cat {prompt}")["errors"]
    assert error["field"] == "prompt" and message in error["message"]
    assert str(server.folder) not in error["message"]


def test_folders_that_are_none(tmp_path):
    for name in ("lora_dir", "hypernetwork_dir", "embeddings_dir"):
        arguments = parse([f"--models={tmp_path}", f"--{name}={tmp_path / 'none'}"])
        with pytest.raises(ConfigError, match=f"{name} is .*, which is no folder"):
            _ = arguments.tunings


# --------------------------------------------------------------------------------- ControlNets


@pytest.fixture(scope="module")
def hint():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def with_units(server, *units, **more):
    return drawn(server, "a cat", alwayson_scripts={"ControlNet": {"args": [*units]}}, **more)


def test_control_by_units(server, hint):
    assert get(server, "/controlnet/model_list").json() == {"model_list": ["net"]}
    assert get(server, "/controlnet/module_list").json() == {"module_list": ["none", "canny"]}
    unit = {"image": hint, "model": "net", "weight": 5, "control_mode": "Balanced",
            "resize_mode": 1, "pixel_perfect": True}  # fmt: skip
    plain = drawn(server, "a cat")["images"][0]
    found = [
        with_units(server, unit | change)["images"][0]
        for change in ({}, {"weight": 1.0}, {"guidance_end": 0.5}, {"control_mode": 2})
    ]
    assert len({plain, *found}) == 5
    off = with_units(server, unit | {"enabled": False}, {"enabled": False})
    assert off["images"][0] == plain


def test_resize_mode(server):
    """Of a hint that is wider than what is drawn; without the field it is cropped."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    unit = {"image": base64.b64encode(content.getvalue()).decode(), "model": "net", "weight": 5}
    drawn_with = {
        mode: with_units(server, unit | {"resize_mode": mode})["images"][0]
        for mode in (None, 0, 1, 2, "Just Resize", "crop and resize", "Envelope (Outer Fit)")
    }
    stretched, cropped, filled = (drawn_with[mode] for mode in (0, 1, 2))
    assert len({stretched, cropped, filled}) == 3
    assert drawn_with[None] == drawn_with["crop and resize"] == cropped
    assert drawn_with["Just Resize"] == stretched
    assert drawn_with["Envelope (Outer Fit)"] == filled


def test_control_in_our_own_form(server, hint):
    unit = {"model": "net", "image": hint, "scale": 5.0, "end": 0.5, "guess_mode": True,
            "fit": "fill"}  # fmt: skip
    sampling = {"width": 16, "height": 16, "steps": 2, "seed": 5, "prompt": "a cat"}
    job = {"model": "model", "request": sampling, "control": [unit]}
    made = requests.post(f"{server.url}/api/jobs", json=job).json()
    found = server.services.worker.find(made["id"])
    assert found.ended.wait(120) and found.refused is None
    told = get(server, f"/api/gallery/{found.files[0]}/settings").json()
    (said,) = told["control"]
    assert requests.get(server.url + said.pop("image")).status_code == 200
    assert said == {"model": "net", "scale": 5.0, "start": 0.0, "end": 0.5, "canny": False,
                    "guess_mode": True, "fit": "fill"}  # fmt: skip
    assert not told["problems"] and not {"control", "hint"} & {*told["request"]}
    server.services.gallery.prune((), grace=0.0)
    picture = json.dumps(
        read_written(server.services.gallery.path(found.files[0])).request.hints.hint
    )
    assert "inputs" in picture and len([*(server.folder / "out/inputs").iterdir()]) == 1


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"model": "../net"}, "control[0].model", "no such ControlNet here, only net"),
        ({"model": None}, "control[0].model", "must be the name of a ControlNet"),
        ({"image": "%"}, "control[0].image", "is not base64"),
        ({"image": 3}, "control[0].image", "must be a picture in base64"),
        ({"scale": "1"}, "control[0].scale", "must be a number"),
        ({"scale": True}, "control[0].scale", "must be a number"),
        ({"scale": 1e9}, "control[0].scale", "not within"),
        ({"start": 2}, "control[0].start", "must be a number from 0 to 1"),
        ({"start": 0.5, "end": 0.5}, "control_start", "the end must be later"),
        ({"canny": [3, 1]}, "control[0].canny", "the lower one first"),
        ({"colour": 1}, "control[0].colour", "is no field here"),
        ({"fit": "squash"}, "control[0].fit", "must be one of stretch, crop, fill"),
    ],
)
def test_refused_controls(server, hint, change, field, message):
    unit = {"model": "net", "image": hint} | change
    job = {"model": "model", "request": {"prompt": "a"}, "control": [unit]}
    (error,) = requests.post(f"{server.url}/api/jobs", json=job).json()["errors"]
    assert error["field"] == field and message in error["message"]


@pytest.mark.parametrize("control", [3, {}, [3], [{}] * 9])
def test_what_is_no_list_of_controls(server, control):
    job = {"model": "model", "request": {"prompt": "a"}, "control": control or "x"}
    (error,) = requests.post(f"{server.url}/api/jobs", json=job).json()["errors"]
    assert error["field"].startswith("control")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "openpose"}, "args[0].module is 'openpose'; it must be one of none, canny"),
        ({"control_mode": "My prompt is more important"}, "args[0].control_mode is"),
        ({"mask": "x"}, "args[0].mask asks for what is not here"),
        ({"resize_mode": 3}, "args[0].resize_mode is 3; it must be one of 'Just Resize' (0),"),
        ({"colour": 1}, "args[0].colour is no field here"),
        ({"model": "other"}, "no such ControlNet here, only net"),
    ],
)
def test_refused_units(server, hint, change, message):
    answer = with_units(server, {"image": hint, "model": "net"} | change)
    assert message in answer["errors"][0]["message"]


def test_paths_are_not_taken(server):
    for name in ("control", "hint", "lora", "hypernetwork_dir", "embeddings_dir"):
        value = ["/etc/passwd"] if not name.endswith("_dir") else "/etc"
        job = {"model": "model", "request": {"prompt": "a", name: value}}
        (error,) = requests.post(f"{server.url}/api/jobs", json=job).json()["errors"]
        assert error["field"] == name


def test_the_page_draws_again_with_its_control(server, hint):
    unit = {"model": "net", "image": hint, "scale": 5.0, "canny": True, "end": 0.75}
    request = {"prompt": "a cat", "width": 16, "height": 16, "steps": 2, "seed": 7}
    job = {"model": "model", "request": request, "control": [unit]}
    made = requests.post(f"{server.url}/api/jobs", json=job).json()
    found = server.services.worker.find(made["id"])
    assert found.ended.wait(120) and found.refused is None
    out, (first,) = server.services.gallery.out, found.files
    before = {path.name for path in out.glob("*.png")}
    driver = browser.start()
    try:
        driver.get(server.url)

        def click(selector):
            look = lambda _: driver.find_elements("css selector", selector)  # noqa: E731
            WebDriverWait(driver, 60).until(look)[0].click()

        click("#gallery li:first-child button")
        click("#viewer-again:enabled")
        WebDriverWait(driver, 60).until(lambda _: len([*out.glob("*.png")]) > len(before))
        assert not list(browser.complaints(driver))
    finally:
        driver.quit()
    (second,) = {path.name for path in out.glob("*.png")} - before
    old, new = (Image.open(out / name) for name in (first, second))
    assert old.tobytes() == new.tobytes()
    assert read_written(out / second).request.hints.hint[0].startswith("canny:100:200:")
