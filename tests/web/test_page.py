"""The page in a real browser, with a real server and small models.

Most of the time goes into compiling. So most tests draw one picture of the same model in the same
number of steps, and those that ask for another model come last.
"""

import base64
import io
import json
import re
import signal
import time
import urllib.request
from dataclasses import replace
from pathlib import Path

import browser
import clip_files
import convert_models
import numpy as np
import pytest
import tiny
from PIL import Image

from ldm_jax import config as cfg
from ldm_jax.config.model import fit_unet
from ldm_jax.convert import imported_model
from ldm_jax.convert.diffusers.pipeline_folders import write_folder
from ldm_jax.convert.native import write_native

PROMPT = "a red three above a blue seven"


def _write_models(folder: Path) -> None:
    """Models of other kinds, with random weights: small ones of our own, and two such as Stable
    Diffusion, one of them for inpainting."""
    autoencoder = replace(tiny.AUTOENCODER, latent_scale=1.0)
    channels = autoencoder.latent_channels
    unet = replace(tiny.UNET, in_channels=channels, out_channels=channels)
    process = cfg.Diffusion(cfg.Discrete(num_timesteps=100, schedule="cosine"), prediction="v")
    kinds = {
        "classes": (replace(unet, class_count=11), (cfg.ClassConditioner(10),)),
        "unconditional": (unet, ()),
    }
    shown = (
        cfg.LowResConditioner(noise=cfg.NoiseAugmentation()),
        cfg.ClassMapConditioner(cfg.ClassMaps(num_classes=4, ignore=None)),
        cfg.LayoutConditioner(cfg.LayoutTokens(2, (), 2, 8, 80), ("cat", "dog"), 8, 1, 2, 4),
    )
    kinds["files"] = fit_unet(tiny.UNET, shown, channels, False), shown
    for name, (unet, conditioners) in kinds.items():
        model = cfg.Model(autoencoder, unet, conditioners, process, 16)
        write_native(imported_model.make(model, convert_models.numbers(model)), folder / name)
    tokenizer = clip_files.write_clip(folder.parent / "clip")
    for name, kind in (("stable", "sd1"), ("fill", "inpainting")):
        model = convert_models.MODELS[kind]
        text = replace(convert_models.CLIP, vocab_size=600)
        conditioners = (replace(convert_models.TEXT, encoder=text), *model.conditioners[1:])
        unet = replace(model.unet, block_out_channels=(32,), attention=(True,), num_heads=(4,))
        model = replace(model, unet=unet, conditioners=conditioners)
        made = imported_model.make(model, convert_models.numbers(model), tokenizer=tokenizer)
        write_folder(made, folder / name)


class Server:
    """The server as a process, with its URL and output folder."""

    def __init__(self, models: list[Path], out: Path, programs: Path) -> None:
        self.models, self.out, self.programs, self.url = models, out, programs, ""
        self.start(0)

    def start(self, port: int) -> None:
        self.process = tiny.start(
            "-m", "ldm_jax.web", "--models", *map(str, self.models), f"--out={self.out}",
            f"--port={port}", programs=self.programs,
        )  # fmt: skip
        line = self.process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found, line + tiny.finish(self.process)[1]
        self.url, self.port = found[0], int(found[1])

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        tiny.finish(self.process)


@pytest.fixture(scope="module")
def server(trained_text2img, programs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    (folder / "models").mkdir()
    _write_models(folder / "models")
    server = Server([trained_text2img, folder / "models"], folder / "out", programs)
    yield server
    server.end()


@pytest.fixture(scope="module")
def chromium():
    driver = browser.start()
    yield driver
    driver.quit()


class Page:
    """What somebody does on the page, and sees."""

    def __init__(self, driver, server) -> None:
        self.driver, self.server = driver, server

    def open(self) -> None:
        """As if nobody had been here before: with the first model."""
        all_of_it = {"origin": self.server.url, "storageTypes": "all"}
        self.driver.execute_cdp_cmd("Storage.clearDataForOrigin", all_of_it)
        self.driver.get(self.server.url)
        self.wait(lambda: self.all("#form[data-model='run']"))

    def use(self, model: str) -> None:
        """Chooses a model and waits for its form."""
        self.choose("#model", model)
        self.wait(lambda: self.all(f"#form[data-model='{model}']"))

    def run(self, script: str, *arguments):
        return self.driver.execute_script(script, *arguments)

    def all(self, selector: str):
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str):
        return self.wait(lambda: self.all(selector))[0]

    def see(self, selector: str) -> str | None:
        """The text there, or None where nothing is to be seen."""
        found = [e for e in self.all(selector) if e.is_displayed()]
        return found[0].text if found else None

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, selector: str, text: str) -> None:
        from selenium.webdriver.common.keys import Keys

        self.one(selector).send_keys(Keys.CONTROL, "a")
        self.one(selector).send_keys(text)

    def choose(self, selector: str, value: str) -> None:
        from selenium.webdriver.support.ui import Select

        Select(self.one(selector)).select_by_value(value)

    def wait(self, condition, seconds: float = 120):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, f"waited in vain; the page says: {self.see('main')}"
            time.sleep(0.05)
        return found

    def names(self) -> list[str]:
        """The files that the gallery shows, the newest first."""
        return self.run("return [...document.querySelectorAll('#gallery button')]"
                        ".map(b => b.dataset.name)")  # fmt: skip

    def draw(self, count: int = 1) -> str:
        """Draws so many pictures more; the name of the newest."""
        before = len(self.names())
        self.click("#draw")
        self.wait(lambda: len(self.names()) == before + count)
        return self.names()[0]

    def settings(self, name: str) -> dict:
        with urllib.request.urlopen(f"{self.server.url}api/gallery/{name}/settings") as answer:
            return json.load(answer)

    def drop(self, selector: str, data: bytes) -> None:
        """Drops a PNG there."""
        self.run("""
            const bytes = Uint8Array.from(atob(arguments[1]), (c) => c.charCodeAt(0));
            const dataTransfer = new DataTransfer();
            dataTransfer.items.add(new File([bytes], "dropped.png", { type: "image/png" }));
            const how = { dataTransfer, bubbles: true, cancelable: true };
            for (const kind of ["dragenter", "dragover", "drop"]) {
              document.querySelector(arguments[0]).dispatchEvent(new DragEvent(kind, how));
            }
        """, selector, base64.b64encode(data).decode())  # fmt: skip


@pytest.fixture
def page(chromium, server):
    browser.resize(chromium, 1280, 900)
    found = Page(chromium, server)
    found.open()
    found.type("#steps", "4")
    yield found
    assert not [*browser.complaints(chromium)]


def test_draws_from_a_prompt_and_remembers_it(page):
    page.type("#prompt", PROMPT)
    page.wait(lambda: page.see("#prompt-tokens") == "7 of 16 tokens")
    name = page.draw()
    page.wait(lambda: len(page.all(".results img")) == 1)
    request = page.settings(name)["request"]
    assert (request["prompt"], request["steps"]) == ([PROMPT], 4)
    assert str(request["seed"]) == page.one("#seed").get_property("value"), "drawn by dice"
    page.driver.refresh()
    page.wait(lambda: page.all("#prompt"))
    typed = [page.one(f"#{name}").get_property("value") for name in ("prompt", "steps")]
    assert typed == [PROMPT, "4"]


def test_draws_with_the_seed_that_was_typed(page):
    page.type("#prompt", PROMPT)
    page.type("#seed", "-5")
    page.click("#draw")
    assert page.see("#seed-error") == "Seed must be from 0 to 4294967295, not -5."
    page.type("#seed", "42")
    assert page.settings(page.draw())["request"]["seed"] == 42
    assert page.one("[aria-label='Keep this seed']").get_attribute("aria-pressed") == "true"


def test_shows_what_is_wrong_beside_the_field(page):
    page.type("#prompt", "a mauve three")
    page.wait(lambda: "does not know mauve" in (page.see("#prompt-tokens") or ""))
    page.click("#draw")
    assert "mauve" in page.wait(lambda: page.see("#prompt-error"))
    assert page.one("#prompt").get_attribute("aria-invalid") == "true"
    page.type("#steps", "100000")
    page.click("#draw")
    assert page.wait(lambda: page.see("#steps-error")) == (
        "Steps must be from 1 to 1000, not 100000."
    )


def test_shows_the_picture_while_it_is_drawn_and_stops(page):
    before = page.names()
    page.click("#more-drawer summary")
    page.type("#batch_size", "1")
    page.type("#steps", "60")
    page.type("#num", "100")
    page.click("#draw")
    assert page.wait(lambda: page.all(".preview"))
    assert re.search(r"step \d+ of \d+", page.see("#stage-note"))
    said = page.run("const stop = document.querySelector('#stop'); stop.click();"
                    "return stop.disabled && stop.textContent")  # fmt: skip
    assert said == "Stopping …"
    assert "Stopped" in page.wait(lambda: not page.all(".preview") and page.see("#stage-note"))
    assert len(page.names()) < len(before) + 100


def test_paints_a_mask_and_draws_under_it(page):
    from selenium.webdriver.common.action_chains import ActionChains

    page.type("#prompt", PROMPT)
    page.click("#draw") if not page.names() else None
    page.wait(page.names)
    original = page.server.out / page.names()[-1]
    page.drop("#drop-zone", original.read_bytes())
    canvas = page.wait(lambda: page.see("#easel") is not None and page.one("canvas.mask"))
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    actions = ActionChains(page.driver).move_to_element_with_offset(canvas, -100, -100)
    actions.click_and_hold().move_by_offset(40, 0).move_by_offset(40, 20).release().perform()
    assert page.one("#strength").get_property("value") == "1", "the usual one with a mask"
    assert page.one("#mask_blur").get_property("value") == "0", "that of small pictures"
    name = page.draw()
    mask = page.settings(name)["mask"]
    with urllib.request.urlopen(page.server.url.rstrip("/") + mask) as answer:
        painted = np.asarray(Image.open(io.BytesIO(answer.read())).convert("L")) > 127
    assert painted[:4, :8].any() and not painted[8:].any(), "the upper left was painted"
    old, new = (np.asarray(Image.open(path)) for path in (original, page.server.out / name))
    np.testing.assert_array_equal(old[12:], new[12:])
    # Undo takes the stroke away, invert paints all.
    page.click("[aria-label='Undo']")
    page.click("[aria-label='Invert the mask']")
    assert not browser.barriers(page.driver)


def test_a_dropped_png_brings_its_settings_back(page):
    page.type("#prompt", PROMPT)
    page.type("#guidance_scale", "2.5")
    data = (page.server.out / page.draw()).read_bytes()
    seed = page.one("#seed").get_property("value")
    page.type("#prompt", "a white nine alone")
    page.type("#guidance_scale", "1")
    page.type("#seed", "5")
    page.drop("#gallery", data)
    page.wait(lambda: page.see(".toast"))
    values = [page.one(f"#{name}").get_property("value")
              for name in ("prompt", "guidance_scale", "seed")]  # fmt: skip
    assert values == [PROMPT, "2.5", seed]
    plain = io.BytesIO()
    Image.new("RGB", (16, 16)).save(plain, "PNG")
    page.drop("#gallery", plain.getvalue())
    page.wait(lambda: any("does not say how it was made" in t.text for t in page.all(".toast")))


def test_compares_two_settings_in_a_grid(page):
    page.type("#prompt", PROMPT)
    page.click("#grid-drawer summary")
    page.choose("#grid-x", "guidance_scale")
    page.type("[aria-label='Values of Guidance']", "2, 3")
    page.choose("#grid-y", "seed")
    page.type("[aria-label='Values of Seed']", "1, 2")
    assert page.see("#draw") == "Draw a grid of 4"
    name = page.draw(5)
    assert name.endswith("_grid.png")
    drawn = [page.settings(n)["request"]["guidance_scale"] for n in page.names()[1:5]]
    assert drawn == [3, 2, 3, 2]
    # What it says brings the grid back: drawn again, or into the form.
    page.run("localStorage.clear()")
    page.driver.refresh()
    page.wait(lambda: page.all("#form[data-model='run']"))
    page.click("#gallery li:first-child button")
    assert "Guidance: 2, 3" in page.wait(lambda: page.see("#viewer-settings"))
    page.click("#viewer-restore")
    page.wait(lambda: page.see("#draw") == "Draw a grid of 4")
    typed = [page.one(f"[aria-label='Values of {name}']").get_property("value")
             for name in ("Guidance", "Seed")]  # fmt: skip
    assert typed == ["2, 3", "1, 2"] and page.see(".toast") == "The settings are in the form."
    page.click("#gallery li:first-child button")
    assert page.one("#viewer-again:enabled").text == "Draw the grid again"
    page.click("#viewer-again")
    page.wait(lambda: page.names()[0] > name and page.names()[0].endswith("_grid.png"))
    old, new = (Image.open(page.server.out / n) for n in (name, page.names()[0]))
    assert old.text == new.text and old.tobytes() == new.tobytes()


def test_the_gallery_shows_and_deletes(page):
    from selenium.webdriver.common.keys import Keys

    page.type("#prompt", PROMPT)
    name, count = page.draw(), len(page.names())
    page.click("#gallery li:first-child button")
    page.wait(lambda: page.see("#viewer-settings"))
    assert not browser.barriers(page.driver)
    page.click("#viewer-vary")
    page.wait(lambda: len(page.names()) == count + 4)
    seeds = [page.settings(name)["request"]["seed"] for name in page.names()[:5]]
    assert seeds == [seeds[0] - i for i in range(5)]
    page.click("#gallery li:nth-child(4) button")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    page.wait(lambda: page.one("#viewer-download").get_attribute("download") == name)
    page.click("#viewer-delete")
    assert (page.server.out / name).exists(), "it asks first"
    page.click("#question-yes")
    page.wait(lambda: name not in page.names())
    assert not (page.server.out / name).exists()


def test_on_a_telephone(page):
    page.click("#more-drawer summary")
    for dark in (False, True):
        browser.resize(page.driver, 360, 740, dark=dark, touch=True)
        width = page.run("return document.documentElement.scrollWidth")
        assert width == 360
        assert not browser.barriers(page.driver)


def test_models_have_the_fields_that_they_have(page):
    page.use("unconditional")
    assert not page.all("#prompt") and not page.all("#guidance_scale") and page.all("#steps")
    page.draw()
    page.use("classes")
    assert not page.all("#prompt") and page.all("#guidance_scale")
    page.type("#classes", "0, 12")
    page.click("#draw")
    assert page.see("#classes-error") == "Class must be from 0 to 9, not 12."
    page.type("#classes", "3")
    assert page.settings(page.draw())["request"]["classes"] == [3]


def test_models_such_as_stable_diffusion(page):
    page.choose("#model", "stable")
    page.wait(lambda: page.see("#model-note") == "Loading the model …")
    page.wait(lambda: page.all("#form[data-model='stable']"))
    page.type("#prompt", "a red cat a red cat")
    page.wait(lambda: page.see("#prompt-tokens") == "6 of 6 tokens")
    page.type("#prompt", "a red cat a red cat a (red:1.1) cat")
    page.wait(lambda: page.see("#prompt-tokens") == "9 tokens, in 2 chunks of up to 6")
    sides = [page.one(f"#{side}") for side in ("width", "height")]
    assert [side.get_property("value") for side in sides] == ["16", "16"]
    page.type("#width", "27\t")
    assert sides[0].get_property("value") == "28", "the next that is possible"
    page.type("#steps", "2")
    before = page.names()[:1]
    page.click("#draw")
    said = page.wait(lambda: "Preparing" in (page.see("#stage-note") or "") and page.see("#stage"))
    assert "only the first time" in said and "a (red:1.1) cat" in said
    page.wait(lambda: page.names()[:1] != before)
    with Image.open(page.server.out / page.names()[0]) as drawn:
        assert drawn.size == (28, 16)


def test_a_finger_paints_what_a_model_for_inpainting_fills_in(page):
    from selenium.webdriver.common.actions.action_builder import ActionBuilder
    from selenium.webdriver.common.actions.pointer_input import PointerInput

    page.use("fill")
    assert page.see("#picture-label") == "Picture to fill in"
    page.type("#steps", "2")
    page.type("#prompt", "a red cat")
    page.click("#draw")
    assert page.see("#init_image-error") == "This model fills in parts of a picture: choose one."
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(content, "PNG")
    browser.resize(page.driver, 360, 740, touch=True)
    page.drop("#drop-zone", content.getvalue())
    canvas = page.wait(lambda: page.see("#easel") is not None and page.one("canvas.mask"))
    page.click("#draw")
    assert page.see("#mask-error") == "Paint over what this model is to fill in."
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    finger = ActionBuilder(page.driver, mouse=PointerInput("touch", "finger"))
    touch = finger.pointer_action
    touch.move_to(canvas, -100, -100).pointer_down().move_to(canvas, 0, -100).pointer_up()
    finger.perform()
    page.wait(lambda: page.see("#mask_blur") is not None)
    page.run("document.querySelector('#draw').scrollIntoView()")
    drawn = np.asarray(Image.open(page.server.out / page.draw()))
    assert (drawn[8:] == (255, 0, 0)).all() and not (drawn[:4] == (255, 0, 0)).all()


def test_what_was_typed_outlives_the_page_and_the_server(page):
    """The last: the console's complaints of a server that is not there are none of the page's."""
    content = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(content, "PNG")
    page.type("#prompt", PROMPT)
    page.type("#seed", "42")
    page.drop("#drop-zone", content.getvalue())
    page.wait(lambda: page.see("#easel") is not None)
    page.click("[aria-label='Invert the mask']")

    def kept():
        values = [
            page.one(f"#{name}").get_property("value") for name in ("prompt", "seed", "steps")
        ]
        shown = page.see("#easel") is not None and page.see("#mask_blur") is not None
        return (values, shown) == ([PROMPT, "42", "4"], True)

    assert kept()
    page.server.end()
    assert "does not answer" in page.wait(lambda: page.see("#offline"))
    assert kept()
    page.server.start(page.server.port)
    page.wait(lambda: page.see("#offline") is None)
    assert kept()
    page.driver.refresh()
    page.wait(lambda: page.all("#form[data-model='run']") and page.see("#easel") is not None)
    page.wait(kept)
    request = page.settings(page.draw())
    assert request["request"]["seed"] == 42 and request["mask"] and request["init_image"]
    assert all("ERR_CONNECTION_REFUSED" in said or "ERR_INCOMPLETE" in said
               for said in browser.complaints(page.driver))  # fmt: skip


def test_draws_from_the_files_that_a_model_is_conditioned_on(page, tmp_path):
    page.use("files")
    assert not page.all("#prompt") and page.see("#init_image-error") is None
    page.click("#draw")
    for name in ("low_res", "class_map", "boxes"):
        assert page.see(f"#{name}-error") == "This model is conditioned on such a file: choose one."
    small, boxes = tmp_path / "small.png", tmp_path / "boxes.json"
    Image.new("RGB", (8, 8), "red").save(small)
    box = {"class": "cow", "box": [0, 0, 8, 8]}
    boxes.write_text(json.dumps({"size": [16, 16], "boxes": [box]}))
    classes = io.BytesIO()
    Image.new("L", (16, 16), 3).save(classes, "PNG")
    page.one("#low_res-file").send_keys(str(small))
    page.one("#boxes-file").send_keys(str(boxes))
    page.drop("[data-field='class_map'] .drop-zone", classes.getvalue())
    page.wait(lambda: "cow" in (page.see(".file-text") or ""))
    page.wait(lambda: len(page.all("#files .paper > img")) == 2)
    page.type("#noise_level", "350")
    page.click("#draw")
    assert page.see("#noise_level-error") == "Noise level must be from 0 to 349, not 350."
    page.type("#noise_level", "5")
    page.click("#draw")
    said = page.wait(lambda: page.see("#boxes-error"))
    assert said == "Boxes: box 1 has the class 'cow'; this model has cat, dog."
    boxes.write_text(boxes.read_text().replace("cow", "cat"))
    page.click("[data-field='boxes'] [aria-label='Take the file away']")
    page.one("#boxes-file").send_keys(str(boxes))
    page.wait(lambda: "cat" in (page.see(".file-text") or ""))
    name = page.draw()
    assert not browser.barriers(page.driver)
    found = page.settings(name)
    request, kept = found["request"], found["files"]
    assert request["noise_level"] == 5 and found["problems"] == []
    sent = {"low_res": small.read_bytes(), "class_map": classes.getvalue(),
            "boxes": boxes.read_bytes()}  # fmt: skip
    for field, data in sent.items():
        with urllib.request.urlopen(page.server.url.rstrip("/") + kept[field]) as answer:
            assert answer.read() == data
    # They are there after a reload, and come back with the settings.
    page.driver.refresh()
    page.wait(lambda: page.all("#form[data-model='files']"))
    page.wait(lambda: len(page.all("#files .paper > *")) == 3)
    page.type("#noise_level", "7")
    page.click("[data-field='low_res'] [aria-label='Take the file away']")
    assert not page.one("#noise_level").is_enabled()
    page.click("#gallery li:first-child button")
    page.wait(lambda: page.all("#viewer-restore:enabled"))
    page.click("#viewer-restore")
    page.wait(lambda: page.one("#noise_level").get_property("value") == "5")
    page.wait(lambda: len(page.all("#files .paper > *")) == 3)
    page.click("#gallery li:first-child button")
    page.wait(lambda: page.all("#viewer-again:enabled"))
    page.click("#viewer-again")
    page.wait(lambda: page.names()[0] > name)
    old, new = (Image.open(page.server.out / n) for n in (name, page.names()[0]))
    assert old.text == new.text and old.tobytes() == new.tobytes()
    # A picture of the gallery is enlarged.
    page.click("#gallery li:first-child button")
    page.wait(lambda: page.all("#viewer-restore:enabled"))
    page.click("#viewer-input")
    page.wait(lambda: "16 × 16" in page.one("[data-field='low_res'] .easel .note").text)
    page.click("#draw")
    assert "different sizes: low_res 32x32 and class_map 16x16" in page.wait(
        lambda: page.see("#form-error")
    )
