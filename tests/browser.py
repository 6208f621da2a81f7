"""A headless Chromium for tests of the page, which reaches nothing but this machine."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

HOW = "apt-get install --no-install-recommends chromium chromium-driver"


def start(width: int = 1280, height: int = 900, *, dark: bool = False, touch: bool = False) -> Any:
    """A browser with a window of this size; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="pip install 'ldm_jax[test]'")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip(f"the page is tested in Chromium, which is not here: {HOW}")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        # No host has a name but this one.
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(driver))
    resize(found, width, height, dark=dark, touch=touch)
    return found


def resize(
    driver: Any, width: int, height: int, *, dark: bool = False, touch: bool = False
) -> None:
    """Another window, in light or dark, of a computer or a telephone."""
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": touch})
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def complaints(driver: Any) -> Iterator[str]:
    """What the console had to say since it was asked last, but for refusals, which pages show."""
    for entry in driver.get_log("browser"):
        if "status of 422" not in entry["message"]:
            yield entry["message"]


def barriers(driver: Any) -> list[str]:
    """What axe finds that keeps people from using the page: the serious and the critical."""
    axe = pytest.importorskip("axe_core_python.selenium", reason="pip install 'ldm_jax[test]'").Axe
    found = axe().run(driver)["violations"]
    return [
        f"{one['id']}: {one['help']} ({', '.join(node['html'] for node in one['nodes'][:3])})"
        for one in found if one["impact"] in ("serious", "critical")
    ]  # fmt: skip
