"""Makes the pictures of docs/web.md: `python docs/make_web_pictures.py --models=runs/demo`.

They show the page in headless Chromium, with a server of its own and an empty gallery at first."""

import base64
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(1, str(Path(__file__).parents[1] / "tests"))

import browser

from benchmarks.web import server

WIDTH, HEIGHT = 1280, 860
MODEL, SEED = "text2img", 1
FIRST = (
    ("a white zero left of a purple eight", 2), ("a yellow two above a green nine", 2),
    ("a blue four alone", 1), ("a green five left of a yellow two", 2),
    ("a red three above a blue seven", 1), ("a purple six left of a white one", 2),
)  # fmt: skip
"""What is in the gallery, with how many of each."""
DRAWN = "a red three above a blue seven"
PAINTED = "a green four left of a white one"
SHOWN_FROM = 0.5
"""Share of the steps after which the drawing is photographed."""


class Page:
    """What somebody does on the page."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], Any], pause: float = 0.05) -> None:
        end = time.monotonic() + 300
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the page did not come so far")
            time.sleep(pause)

    def there(self, selector: str) -> bool:
        return bool(self.driver.find_elements("css selector", selector))

    def type(self, name: str, text: object) -> None:
        from selenium.webdriver.common.keys import Keys

        self.find(f"#{name}").send_keys(Keys.CONTROL, "a")
        self.find(f"#{name}").send_keys(str(text))

    def count(self) -> int:
        return len(self.driver.find_elements("css selector", "#gallery li"))

    def draw(self, prompt: str, num: int, steps: int = 50) -> int:
        """Begins a drawing; how many pictures there are when it is done."""
        self.type("prompt", prompt)
        self.type("num", num)
        self.type("steps", steps)
        self.find("#draw").click()
        return self.count() + num

    def settle(self, count: int) -> None:
        """Waits for the last picture, and until nothing on the page moves any more."""
        self.wait(lambda: self.count() == count and self.there(".results img"))
        time.sleep(1.5)

    def photograph(self, name: str) -> None:
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {})
        Path(__file__).with_name(f"web_{name}.png").write_bytes(base64.b64decode(shot["data"]))


def main(models: Path) -> None:
    """Draws, paints, and writes the PNG files beside this one."""
    driver = browser.start(WIDTH, HEIGHT)
    try:
        with TemporaryDirectory() as folder, server(models, Path(folder)) as url:
            driver.get(url)
            page = Page(driver)
            page.wait(lambda: page.there(f"#form[data-model='{MODEL}']"))
            page.type("seed", SEED)
            for prompt, num in FIRST:
                page.settle(page.draw(prompt, num))
            drawing(page)
            painting(page)
    finally:
        driver.quit()


def drawing(page: Page) -> None:
    """Six pictures while they are drawn."""
    count = page.draw(DRAWN, 6, 100)
    far = "const bar = document.querySelector('#bar'); return bar.value / bar.max > arguments[0]"
    page.wait(lambda: page.there("img.preview") and page.run(far, SHOWN_FROM), pause=0.01)
    page.photograph("page")
    page.settle(count)


def painting(page: Page) -> None:
    """A mask over the left digit of a picture of the gallery, and what is drawn in its place."""
    from selenium.webdriver.common.action_chains import ActionChains

    page.run("document.querySelector('#gallery li:nth-child(7) button').click()")
    page.wait(lambda: page.find("#viewer-again").is_enabled())
    page.find("#viewer-input").click()
    page.wait(lambda: page.find("#easel").is_displayed())
    canvas = page.find("canvas.mask")
    page.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
    stroke = ActionChains(page.driver).move_to_element_with_offset(canvas, -105, -95)
    stroke.click_and_hold()
    for x, y in ((0, 190), (38, 0), (0, -190), (36, 0), (0, 190)):
        stroke.move_by_offset(x, y)
    stroke.release().perform()
    page.settle(page.draw(PAINTED, 4))
    page.run("document.querySelector('.sheet').scrollTop = 180")
    time.sleep(0.5)
    page.photograph("mask")


if __name__ == "__main__":
    tyro.cli(main)
