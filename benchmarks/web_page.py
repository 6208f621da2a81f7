"""How long somebody who just ran `make demo` waits for a first picture in the browser: from the
server's start over the page to a preview and the picture, in headless Chromium.

    python -m benchmarks.web_page [--models=runs/demo]

The first round has an empty compilation cache, the second that which the first has filled.
"""

import dataclasses
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tyro

from benchmarks.web import server

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import browser

PATIENCE = 300
"""Seconds until a step that does not end is given up."""


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures the steps to a first picture."""

    models: Path = Path("runs/demo")
    prompt: str = "a red three above a blue seven"


def wait(condition: Callable[[], Any]) -> None:
    """Returns once `condition` holds."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {PATIENCE} s")
        time.sleep(0.02)


def walk(driver: Any, arguments: Arguments, programs: Path, out: Path) -> dict[str, float]:
    """Seconds of each step; typing takes none."""
    times = [time.perf_counter()]

    def find(selector: str) -> list[Any]:
        return driver.find_elements("css selector", selector)

    def ended() -> None:
        times.append(time.perf_counter())

    with server(arguments.models, out, programs) as url:
        ended()
        driver.get(url)
        wait(lambda: find("#model option"))
        ended()
        wait(lambda: find("#form[data-model] #prompt"))
        ended()
        find("#prompt")[0].send_keys(arguments.prompt)
        find("#draw")[0].click()
        wait(lambda: find("img.preview, .results img"))
        ended()
        wait(lambda: find(".results img"))
        ended()
    steps = ("server listens", "page is shown", "model is loaded", "first preview", "picture")
    seconds = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    return dict(zip(steps, seconds, strict=True)) | {"all": times[-1] - times[0]}


def main(arguments: Arguments) -> None:
    """Prints the seconds of each step."""
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("empty", "filled"):
            driver = browser.start()
            try:
                found = walk(driver, arguments, Path(folder) / "programs", Path(folder) / cache)
            finally:
                driver.quit()
            told = ", ".join(f"{step} {seconds:.1f} s" for step, seconds in found.items())
            print(f"{cache} compilation cache: {told}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Arguments))
