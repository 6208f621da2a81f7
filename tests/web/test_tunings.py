"""What prompts name beside a model, over HTTP: adapters, hypernetworks and words of embeddings."""

import threading
from types import SimpleNamespace

import pytest
import requests
import small_tunings

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
        f"--out={folder / 'out'}",
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
