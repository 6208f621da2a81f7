"""The server as a process with a small trained model, asked as its users do: by the page's API, and
by both published clients of the community's API, unmodified. The last test ends it."""

import base64
import io
import json
import re
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
import tiny
import webuiapi
from hostile import OUTSIDE, hostile_requests
from PIL import Image
from sd_backend_client.api.a1111_webservice import A1111Webservice
from sd_backend_client.api.detect import connect_to_backend
from sd_backend_client.api.shared_data.generation_handle import GenerationStatus
from sd_backend_client.api.webui.diffusion_request_body import DiffusionRequestBody
from sd_backend_client.errors import GenerationError, ServerError

from ldm_jax.adapters.adapter import Adapter
from ldm_jax.adapters.lora import LoRA
from ldm_jax.cli import sample
from ldm_jax.config.request import Request
from ldm_jax.convert.adapters.adapter_writer import write_adapter
from ldm_jax.convert.adapters.module_names import ModuleNames
from ldm_jax.convert.loading import load
from ldm_jax.images.picture_text import read_written

PROMPT, OTHER = "a red three alone", "a blue seven alone"
SMALL = {"prompt": PROMPT, "width": 16, "height": 16, "steps": 3, "cfg_scale": 2.0}
LONG = SMALL | {"steps": 100, "n_iter": 100}
"""What nobody waits for to its end."""


@pytest.fixture(scope="module")
def server(trained_text2img, programs, tmp_path_factory):
    """The server's address, output folder and process."""
    home = tmp_path_factory.mktemp("server")
    extra = home / "extra"
    extra.mkdir()
    (extra / "broken.safetensors").write_bytes(b"no model")
    write_strong_adapter(trained_text2img, home / "adapters")
    process = tiny.start(
        "-m", "ldm_jax.web", "--models", str(trained_text2img), str(extra), f"--out={home / 'out'}",
        "--port=0", f"--lora_dir={home / 'adapters'}", "--max_body=3000000", "--max_queue=60",
        "--body_seconds=5", programs=programs,
    )  # fmt: skip
    lines: list[str] = []
    while not (found := re.search(r"http://127.0.0.1:(\d+)/", lines[-1] if lines else "")):
        lines.append(process.stdout.readline())
        assert lines[-1], f"the server ended: {lines}"
    reader = threading.Thread(target=lambda: lines.extend(process.stdout))
    reader.start()
    port = int(found[1])
    yield SimpleNamespace(
        port=port, url=f"http://127.0.0.1:{port}", out=home / "out", home=home, process=process,
        lines=lines, model=trained_text2img,
    )  # fmt: skip
    process.kill()
    process.wait()
    reader.join()
    process.stdout.close()


def write_strong_adapter(model, folder):
    """An adapter of the model's text encoder that nobody overlooks, in a folder."""
    folder.mkdir()
    path = "encoder/layers/0/mlp/fc1"
    imported = load(model)
    shape = ModuleNames.of(imported.config, imported.params).places[path.replace("/", ".")].shape
    random = np.random.default_rng(0)
    down, up = (random.normal(size=s).astype(np.float32) for s in ((2, shape[1]), (shape[0], 2)))
    adapter = Adapter({"text_encoder": {path: (LoRA(down, up),)}}, "strong")
    write_adapter(adapter, folder / "strong.safetensors", "kohya")


@pytest.fixture(scope="module")
def api(server):
    found = webuiapi.WebUIApi(port=server.port)
    yield found
    found.session.close()


@pytest.fixture(scope="module")
def backend(server):
    found = connect_to_backend(server.url)
    assert isinstance(found, A1111Webservice)
    yield found
    found.disconnect()


def files(result):
    """The files of pictures in an answer of webuiapi's."""
    return [base64.b64decode(text) for text in result.json["images"]]


def drawn_by_sample(tmp_path, *options):
    """The file that `sample.py` writes."""
    assert sample.main([*options, f"--out={tmp_path / 'out'}"]) == 0
    (path,) = (tmp_path / "out").glob("[0-9]*.png")
    return path.read_bytes()


def words(request):
    """The options of `sample.py` that say what a file's request, as JSON, does."""
    neutral = Request().to_dict()
    said = []
    for name, value in request.items():
        if value != neutral.get(name):
            values = [*map(str, value)] if isinstance(value, list) else [str(value)]
            said += [f"--{name}", *values] if isinstance(value, list) else [f"--{name}={value}"]
    return said


def mask(box=(0, 0, 8, 16)):
    found = Image.new("L", (16, 16))
    found.paste(255, box)
    return found


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


# ------------------------------------------------------------------------ the community's clients


def test_pictures_are_sample_pys_byte_for_byte(server, api, tmp_path):
    result = api.txt2img(**SMALL, seed=5, batch_size=2, n_iter=1, sampler_name="DDIM", eta=0.0)
    assert result.info["all_seeds"] == [5, 6] and len(result.images) == 2
    expected = drawn_by_sample(
        tmp_path, f"--model={server.model}", f"--prompt={PROMPT}", "--seed=6", "--steps=3",
        "--guidance=2", "--height=16", "--width=16", "--batch_size=1", "--sampler=ddim", "--eta=0",
        "--spacing=leading",
    )  # fmt: skip
    assert files(result)[1] == expected
    assert not [*server.out.glob("*.png")]  # not asked for: save_images


def test_the_example_of_the_docs_draws(server, tmp_path, monkeypatch):
    text = (Path(__file__).parents[2] / "docs/web.md").read_text()
    code = re.search(r"```py\n(import webuiapi.*?)```", text, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    exec(code.replace("port=7860", f"port={server.port}"), names := {})
    names["api"].session.close()
    with Image.open("three.png") as image:
        assert image.size == (16, 16)


def test_png_info_tells_what_was_drawn(api):
    result = api.txt2img(**SMALL, seed=4294967295, negative_prompt=OTHER)
    info = api.png_info(result.image).info
    assert info == result.info["infotexts"][0]
    assert info.startswith(f"{PROMPT}\nNegative prompt: {OTHER}\nSteps: 3, Sampler: Euler a")
    # The client sends the text along that its picture has.
    told = api.session.post(f"{api.baseurl}/png-info", json={
        "image": result.json["images"][0]}).json()  # fmt: skip
    assert told["parameters"]["Seed"] == "4294967295" and "ldm_jax" in told["items"]


def test_pictures_are_changed_and_painted_anew(server, api, tmp_path):
    start = api.txt2img(**SMALL, seed=1).image
    changed = api.img2img(images=[start], denoising_strength=0.5, seed=2, **SMALL | {"steps": 6})
    assert changed.info["denoising_strength"] == 0.5
    how = {"mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": False, "save_images": True}
    painted = api.img2img(
        images=[start], mask_image=mask(), seed=2, **SMALL | {"steps": 6, "prompt": OTHER} | how
    )
    before, after = np.asarray(start), np.asarray(painted.image)
    np.testing.assert_array_equal(before[:, 8:], after[:, 8:])
    assert not np.array_equal(before[:, :8], after[:, :8])
    assert painted.info["is_using_inpainting_conditioning"]

    path = tmp_path / "painted.png"
    path.write_bytes(files(painted)[0])
    written = read_written(path)
    assert not written.problems
    request = {n: v for n, v in written.request.to_dict().items() if n not in written.filled}
    assert drawn_by_sample(tmp_path, *words(request)) == files(painted)[0]
    (kept,) = server.out.glob("*.png")
    assert kept.read_bytes() == files(painted)[0]


def test_resize_mode_of_a_wide_picture(api):
    """What is kept is the middle, or all with the colours of its edge above and below."""
    start = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8))
    where = Image.new("L", start.size)
    where.paste(255, (8, 0, 12, 16))
    how = {"mask_blur": 0, "inpainting_fill": 1, "inpaint_full_res": False, "seed": 3}
    painted = {
        mode: np.asarray(api.img2img(images=[start], mask_image=where, resize_mode=mode,
                                     **SMALL | how).image)
        for mode in (1, 2)
    }  # fmt: skip
    np.testing.assert_array_equal(painted[1][:, 4:], np.asarray(start)[:, 12:24])
    small = np.asarray(start.resize((16, 8), Image.Resampling.LANCZOS))
    whole = np.pad(small, ((4, 4), (0, 0), (0, 0)), "edge")
    np.testing.assert_array_equal(painted[2][:, 9:], whole[:, 9:])
    assert not np.array_equal(painted[2][:, 4:6], whole[:, 4:6])


def test_filled_masks_inverted_masks_and_crops(api):
    start = api.txt2img(**SMALL, seed=1).image
    same = {"images": [start], "mask_image": mask((0, 0, 5, 16)), "seed": 3, "mask_blur": 0}
    for how, kept in (
        ({}, np.s_[:, 5:]), ({"inpainting_mask_invert": 1}, np.s_[:, :5]),
        ({"inpaint_full_res": True, "inpaint_full_res_padding": 2}, np.s_[:, 5:]),
    ):  # fmt: skip
        painted = np.asarray(api.img2img(**same, **SMALL | {"steps": 6} | how).image)
        np.testing.assert_array_equal(painted[kept], np.asarray(start)[kept])


def test_what_is_not_here_is_refused_by_name(api):
    for wrong, field in (
        ({"enable_hr": True}, "enable_hr"), ({"width": 17}, "width"), ({"steps": 0}, "steps"),
        ({"sampler_name": "Restart"}, "sampler_name"), ({"prompt": "a red xyz"}, "prompt"),
        ({"styles": ["x"]}, "styles"), ({"n_iter": 101}, "n_iter"),
        ({"cfg_scale": 1e9}, "cfg_scale"),
        ({"override_settings": {"sd_model_checkpoint": "../x"}},
         "override_settings.sd_model_checkpoint"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2}},
         "override_settings.CLIP_stop_at_last_layers"),
        ({"eta": 0.5, "sampler_name": "Euler"}, "eta"), ({"script_name": "x"}, "script_name"),
    ):  # fmt: skip
        with pytest.raises(RuntimeError) as caught:
            api.txt2img(**SMALL | wrong)
        status, text = caught.value.args
        assert (status, json.loads(text)["errors"][0]["field"]) == (422, field), text
    assert requests.get(f"{api.baseurl}/txt2img").status_code == 405
    for route in ("extra-single-image", "interrogate", "nothing"):
        assert requests.post(f"{api.baseurl}/{route}", json={}).status_code == 404
    assert requests.post(f"{api.baseurl}/options", data="[1]").status_code == 400


def test_what_there_is_is_listed(api):
    assert [one["title"] for one in api.get_sd_models()] == ["run", "broken.safetensors"]
    assert {"Euler a", "DPM++ 2M", "DDIM"} <= {*api.util_get_sampler_names()}
    assert "karras" in api.util_get_scheduler_names()
    assert api.get_upscalers()[0]["name"] == "None"
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    for empty in ("sd_vae", "hypernetworks", "latent_upscale_modes", "prompt_styles"):
        assert getattr(api, f"get_{empty}")() == []
    assert api.get_memory()["ram"]["total"] > 0 and api.get_cmd_flags()["api"]
    assert api.refresh_checkpoints() is None
    assert api.custom_get("sdapi/v1/script-info") == []


def test_a_model_that_cannot_be_loaded_is_told_of(api):
    try:
        api.util_set_model("broken.safetensors")
        assert api.util_get_current_model() == "broken.safetensors"
        with pytest.raises(RuntimeError) as caught:
            api.txt2img(**SMALL)
        assert caught.value.args[0] == 422 and "broken.safetensors: is neither" in str(caught.value)
        assert "/" not in json.loads(caught.value.args[1])["errors"][0]["message"]
    finally:
        api.set_options({"sd_model_checkpoint": "run", "sd_vae": "Automatic"})
    api.set_options({"CLIP_stop_at_last_layers": 2})  # of which this model has none
    assert api.txt2img(**SMALL).images
    api.set_options({"CLIP_stop_at_last_layers": 1})
    names = {one["name"]: one for one in api.custom_get("api/models")}
    assert names["run"]["loaded"] and "broken.safetensors" in names["broken.safetensors"]["problem"]


def test_adapters_are_listed_and_named_by_prompts(server, api, tmp_path):
    listed = requests.get(f"{server.url}/sdapi/v1/loras").json()
    assert [one["name"] for one in listed] == ["strong"]
    form = requests.get(f"{server.url}/api/form", {"model": "run"}).json()
    assert form["adapters"] == ["strong"]
    text = {"model": "run", "text": f"{PROMPT} <lora:strong:0.5>"}
    counted = requests.post(f"{server.url}/api/tokens", json=text).json()
    assert counted["count"] == len(PROMPT.split()) and not counted["unknown"]
    assert api.get_loras() == listed
    how = {"seed": 5, "sampler_name": "DDIM", "eta": 0.0}
    plain = api.txt2img(**SMALL, **how)
    tagged = api.txt2img(**SMALL | {"prompt": text["text"]}, **how)
    assert plain.image != tagged.image
    expected = drawn_by_sample(
        tmp_path, f"--model={server.model}", f"--prompt={PROMPT}", "--seed=5", "--steps=3",
        "--guidance_scale=2", "--width=16", "--height=16", "--sampler=ddim", "--eta=0",
        "--spacing=leading", f"--lora={server.home / 'adapters/strong.safetensors'}:0.5",
    )  # fmt: skip
    assert np.array_equal(tagged.image, Image.open(io.BytesIO(expected)))
    with pytest.raises(RuntimeError, match="no such adapter"):
        api.txt2img(**SMALL | {"prompt": "a red three <lora:weak>"})


def test_progress_and_interruption(api):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.txt2img, **LONG, seed=1)
        told = until(lambda: (p := webuiapi_progress(api))["state"]["job_no"] > 1 and p)
        assert 0 < told["progress"] < 1 and told["state"]["job_count"] == 100
        assert api.interrupt() == {} and api.skip() == {}
        result = waiting.result()
    count = len(result.images)
    assert 2 <= count < 100 and result.info["all_seeds"] == [*range(1, count + 1)]
    idle = api.get_progress()
    assert (idle["progress"], idle["state"]["job_count"], idle["current_image"]) == (0.0, 0, None)
    api.util_wait_for_ready()


def webuiapi_progress(api):
    """From another connection than that which waits."""
    return requests.get(f"{api.baseurl}/progress").json()


def test_a_client_that_goes_away_is_no_longer_drawn_for(api):
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.post(f"{api.baseurl}/txt2img", json=LONG, timeout=1)
    until(lambda: api.get_progress()["state"]["job_count"] == 0)


def test_the_strict_client(backend):
    abilities = backend.get_capabilities()
    assert abilities.scheduler and abilities.controlnet and not abilities.interrogate
    assert [option.name for option in backend.list_checkpoints()] == ["run", "broken.safetensors"]
    assert {"euler", "ddim", "dpmpp_2m"} <= {option.name for option in backend.list_samplers()}
    assert {"normal", "karras"} <= {option.name for option in backend.list_schedulers()}
    assert [option.name for option in backend.list_loras()] == ["strong"]
    assert not (backend.list_vaes() or backend.list_upscalers())
    assert not (backend.get_styles() or backend.list_hypernetworks() or backend.get_script_info())
    backend.set_config({"CLIP_stop_at_last_layers": 1})
    assert backend.get_config()["sd_model_checkpoint"] == "run"
    backend.refresh_checkpoints()

    small = {"width": 16, "height": 16, "steps": 4, "seed": 7, "prompt": PROMPT}
    body = DiffusionRequestBody(**small, batch_size=2, sd_model_name="run", sampler="dpmpp_2m")
    result = backend.submit_txt2img(body).wait(60, 0.1)
    assert result.seeds == [7, 8] and [image.size for image in result.images] == [(16, 16)] * 2
    assert result.raw_info.sampler_name == "DPM++ 2M" and result.raw_info.sd_model_name == "run"
    pictures = {"init_images": [result.images[0]], "denoising_strength": 0.6}
    assert backend.submit_img2img(DiffusionRequestBody(**small, **pictures)).wait(60).images
    body = DiffusionRequestBody(**small, **pictures, mask=mask(), inpaint_full_res=False)
    assert backend.submit_inpaint(body).wait(60).images[0].size == (16, 16)
    with pytest.raises(ServerError, match="422.*enable_hr"):
        backend.txt2img(DiffusionRequestBody(**small, enable_hr=True))


def test_the_strict_client_cancels(backend):
    steps = {"width": 16, "height": 16, "steps": 100, "n_iter": 100, "prompt": PROMPT}
    handle = backend.submit_txt2img(DiffusionRequestBody(**steps))
    until(lambda: (p := handle.poll()).status is GenerationStatus.ACTIVE and p.progress)
    assert handle.cancel()
    with pytest.raises(GenerationError):
        handle.wait(60)
    assert backend.progress_check().progress == 0.0


# ------------------------------------------------------------------------------- the page's own API


def data_url(image):
    content = io.BytesIO()
    image.save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


def ask(server, method, path, status=200, **how):
    answer = requests.request(method, f"{server.url}{path}", timeout=60, **how)
    assert answer.status_code == status, answer.text[:500]
    return answer


def finished(server, number):
    def ended():
        told = ask(server, "GET", f"/api/jobs/{number}").json()
        return told["stage"] in ("done", "stopped", "failed") and told

    return until(ended)


def test_a_picture_is_drawn_listed_and_drawn_again(server):
    ask(server, "GET", "/api/form?model=nothing", 422)
    form = ask(server, "GET", "/api/form?model=run").json()
    assert form["inputs"] == ["caption"] and form["sides"]["height"]["default"] == 16
    values = {"prompt": [PROMPT], "steps": 3, "num": 2, "seed": 9}
    start = {"model": "run", "request": values | {"strength": 0.9}}
    start |= {"init_image": data_url(Image.new("RGB", (16, 16), "red")), "mask": data_url(mask())}
    told = finished(server, ask(server, "POST", "/api/jobs", 201, json=start).json()["id"])
    assert (told["stage"], told["pictures_done"], told["error"]) == ("done", 2, None)

    name = told["files"][-1]
    listed = ask(server, "GET", "/api/gallery?count=1").json()
    assert [(one["name"], one["prompt"]) for one in listed] == [(name, PROMPT)]
    picture = ask(server, "GET", f"/api/gallery/{name}")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content == (server.out / name).read_bytes()
    found = ask(server, "GET", f"/api/gallery/{name}/settings").json()
    assert found["model"] == "run" and found["problems"] == [] and PROMPT in found["text"]
    assert ask(server, "POST", "/api/settings_of", data=picture.content).json() == found
    again = {"model": found["model"], "request": found["request"]}
    for part in ("init_image", "mask"):
        sent = ask(server, "GET", found[part]).content
        again[part] = base64.b64encode(sent).decode()
    told = finished(server, ask(server, "POST", "/api/jobs", 201, json=again).json()["id"])
    with Image.open(server.out / told["files"][0]) as one, Image.open(server.out / name) as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    ask(server, "DELETE", f"/api/gallery/{name}")
    ask(server, "GET", f"/api/gallery/{name}", 404)


def test_jobs_are_refused_and_fail_by_field(server):
    def refused(**body):
        answer = ask(server, "POST", "/api/jobs", 422, json={"model": "run"} | body)
        return [one["field"] for one in answer.json()["errors"]]

    assert refused(request={"steps": 0}) == ["steps"]
    assert refused(request={}, others=1) == ["others"]
    assert refused(model="nothing") == ["model"]
    assert refused(mask="?", init_image="?") == ["init_image"]
    # Where the model is in memory, prompts are read at once.
    body = {"model": "run", "request": {"prompt": "a red xyz"}}
    (error,) = ask(server, "POST", "/api/jobs", 422, json=body).json()["errors"]
    assert error["field"] == "prompt"
    assert "'xyz'" in error["message"] and "--" not in error["message"]


def test_what_is_cut_off_a_prompt_is_told(server, api):
    long = " ".join(["a red three above"] * 5)
    body = {"model": "run", "request": {"prompt": long, "steps": 2, "batch_size": 1}}
    number = ask(server, "POST", "/api/jobs", 201, json=body).json()["id"]
    (note,) = finished(server, number)["notes"]
    assert "20 tokens" in note and "first 16" in note
    info = api.txt2img(**SMALL | {"prompt": long}).info
    assert info["extra_generation_params"] == {"Notes": note}


def test_tokens_are_counted(server):
    counted = {"model": "run", "text": "a red xyz"}
    told = ask(server, "POST", "/api/tokens", json=counted).json()
    assert told == {"count": 3, "limit": 16, "chunks": 1, "unknown": ["xyz"]}
    ask(server, "POST", "/api/tokens", 409, json=counted | {"model": "broken.safetensors"})


def test_a_grid_is_drawn_and_events_tell(server):
    grid = {"model": "run", "request": {"prompt": [PROMPT], "seed": 1, "batch_size": 1}}
    grid |= {"x": {"name": "steps", "values": [2, 3]},
             "y": {"name": "prompt", "values": [PROMPT, OTHER]}}  # fmt: skip
    with requests.get(f"{server.url}/api/events", stream=True, timeout=60) as events:
        made = ask(server, "POST", "/api/grid", 201, json=grid).json()
        assert len(made["jobs"]) == 4
        seen = []
        for line in events.iter_lines(chunk_size=1):
            seen.append(line)
            if line.startswith(b"data: {") and b"_grid.png" in line:
                break
    assert b"event: jobs" in seen and b"event: gallery" in seen
    for wrong, field in (
        ({"x": {"name": "nothing", "values": [1]}}, "x"), ({"y": grid["x"]}, "y"),
        ({"x": {"name": "steps", "values": [0]}}, "steps"), ({"x": None}, "x"),
    ):  # fmt: skip
        answer = ask(server, "POST", "/api/grid", 422, json=grid | wrong)
        assert answer.json()["errors"][0]["field"] == field


def test_a_job_is_stopped_and_the_queue_goes_on(server):
    long = {
        "model": "run",
        "request": {"prompt": [PROMPT], "steps": 100, "num": 90, "batch_size": 1},
    }
    short = {"model": "run", "request": {"prompt": [PROMPT], "steps": 3, "batch_size": 1}}
    numbers = [
        ask(server, "POST", "/api/jobs", 201, json=body).json()["id"]
        for body in (long, long, short)
    ]
    until(lambda: ask(server, "GET", f"/api/jobs/{numbers[0]}").json()["pictures_done"])
    for number in numbers[:2]:
        ask(server, "DELETE", f"/api/jobs/{number}")
    ends = [finished(server, number) for number in numbers]
    assert [told["stage"] for told in ends] == ["stopped", "stopped", "done"]
    assert 0 < ends[0]["pictures_done"] < 90 and ends[1]["pictures_done"] == 0


# -------------------------------------------------------------------------------- hostile requests


def resident(process):
    """Megabytes of a process."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def test_hostile_requests_change_nothing(server, api):
    before = {path: path.stat().st_mtime for path in server.home.rglob("*")}
    memory = resident(server.process)
    with ThreadPoolExecutor(50) as pool:
        answers = [*pool.map(lambda send: send(server.port), hostile_requests())]
    assert len(answers) >= 200
    wrong = [(name, status) for name, status in answers if not 400 <= status < 500]
    assert not wrong, wrong
    assert api.txt2img(**SMALL).images
    until(lambda: api.get_progress()["state"]["job_count"] == 0)
    after = {path: path.stat().st_mtime for path in server.home.rglob("*") if path.is_file()}
    assert {*after} <= {*before}, {*after} - {*before}
    assert all(before[path] == time for path, time in after.items())
    assert resident(server.process) < memory + 150
    assert not (server.home / "x").exists() and not Path(OUTSIDE).exists()


def test_a_signal_ends_it_in_seconds(server):
    job = {
        "model": "run",
        "request": {"prompt": [PROMPT], "steps": 100, "num": 90, "batch_size": 1},
    }
    number = ask(server, "POST", "/api/jobs", 201, json=job).json()["id"]
    until(lambda: ask(server, "GET", f"/api/jobs/{number}").json()["pictures_done"] > 2)
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(20) == 130
    assert time.monotonic() - began < 10
    until(lambda: any("interrupted by SIGTERM" in line for line in server.lines))
    for path in server.out.glob("*.png"):
        assert path.name.endswith("_grid.png") or not read_written(path).problems
    assert not [*server.out.glob(".*.tmp")]
    assert not [line for line in server.lines if "Traceback" in line], server.lines
