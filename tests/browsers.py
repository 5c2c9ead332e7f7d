"""A real Chromium without a screen, for tests of pages; skips where there is none."""

from __future__ import annotations

import io
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.common.exceptions import WebDriverException  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402

_FLAGS = (
    "--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--disable-dev-shm-usage", "--disable-gpu-compositing", "--lang=en",
    "--disable-background-networking", "--disable-component-update", "--no-first-run",
)  # fmt: skip

AXE = Path(__file__).resolve().parents[1] / "out/axe/axe.min.js"
"""axe-core, where it was fetched: constraints/viewer.py --tests."""

_WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) =>
  window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
"""


class Browser:
    """One browser, as a person uses it."""

    def __init__(self, downloads: Path, width: int = 1240, height: int = 760) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which("chromium"))
        for flag in (*_FLAGS, f"--window-size={width},{height}"):
            options.add_argument(flag)
        several = "profile.default_content_setting_values.automatic_downloads"
        prefs = {"download.default_directory": str(downloads), several: 1}
        options.add_experimental_option("prefs", prefs)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.downloads = downloads
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(120)
        watch = {"source": _WATCH}
        self.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", watch)

    def begin(self, link: str) -> Browser:
        """Open a page as the first one: nothing of an earlier one is left."""
        self.driver.get("about:blank")
        self.requests()
        self.driver.get_log("browser")
        for path in self.downloads.iterdir():
            path.unlink()
        self.go(link)
        return self

    def go(self, link: str) -> None:
        """Open the page, and wait until it is ready."""
        self.driver.get(link)
        self.until(lambda: self.js("return document.documentElement.dataset.ready"))

    def see(self, job: str, kind: str) -> None:
        """Open a result, and wait until all of it is shown."""
        self.js("location.hash = '#/'")
        self.until(lambda: self.all(".studies"))
        self.js("delete document.documentElement.dataset.shown")
        self.js("location.hash = `#/job/${arguments[0]}`", job)
        self.until(lambda: self.js("return document.documentElement.dataset.shown") == kind, 120)

    def compare(self, first: str, second: str) -> str:
        """Open two results side by side; gives whether they are of one patient."""
        self.js("location.hash = '#/'")
        self.until(lambda: self.all(".studies"))
        self.js("delete document.documentElement.dataset.shown")
        self.js(f"location.hash = '#/compare/{first}/{second}'")
        self.until(
            lambda: self.js("return document.documentElement.dataset.shown") == "compare", 120
        )
        return self.attribute("#kinship", "data-kin")

    def js(self, code: str, *values: Any) -> Any:
        """Run a script in the page."""
        return self.driver.execute_script(code, *values)

    def find(self, selector: str) -> Any:
        """The first element."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        """All elements, in their order."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        """What the elements say, read at once: the page may draw a list again in between."""
        code = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
        return self.js(code, selector)

    def said(self, selector: str) -> str:
        """What the first element says, read at once, as soon as there is one."""
        code = "return document.querySelector(arguments[0])?.innerText ?? null"
        return self.until(lambda: [t for t in [self.js(code, selector)] if t is not None])[0]

    def attribute(self, selector: str, name: str) -> Any:
        """An attribute of the first element as it is now, read at once, as soon as there is one."""
        code = """const [selector, name] = arguments, e = document.querySelector(selector);
            return e && [name == "value" ? e.value : e.getAttribute(name)]"""
        return self.until(lambda: self.js(code, selector, name))[0]

    def visible(self, selector: str) -> bool:
        """Whether the first element is there and shown, read at once."""
        return self.js(
            "return document.querySelector(arguments[0])?.checkVisibility() ?? false", selector
        )

    def identity(self, selector: str, prefix: str) -> str:
        """The first element's id without its prefix, read at once."""
        return self.js("return document.querySelector(arguments[0]).id", selector)[len(prefix) :]

    def until(self, wanted: Callable[[], Any], seconds: float = 60) -> Any:
        """Wait until something holds; says what the browser's console has when it does not."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := wanted():
                    return found
            except WebDriverException:
                found = None
            assert time.monotonic() < deadline, (self.driver.get_log("browser"), self.text())
            time.sleep(0.1)

    def text(self) -> str:
        """All text of the page."""
        return self.find("body").text

    def press(self, selector: str) -> None:
        """Click, wherever it lies, as soon as it is there."""
        code = """const e = document.querySelector(arguments[0]);
            e?.scrollIntoView({block: "center"}); e?.click(); return Boolean(e)"""
        self.until(lambda: self.js(code, selector))

    def set(self, selector: str, value: Any) -> None:
        """Give a field a value as somebody who types does."""
        code = """const field = document.querySelector(arguments[0]);
            if (!field) return false;
            field.value = arguments[1];
            for (const kind of ["input", "change"]) field.dispatchEvent(new Event(kind));
            return true"""
        self.until(lambda: self.js(code, selector, str(value)))

    def picture(self, selector: str = "#ct") -> np.ndarray:
        """An element as it is shown, float [H, W, 3], once two pictures in a row are equal."""
        self.js("window.scrollTo(0, 0)")  # the header covers what lies further up
        before: np.ndarray | None = None
        for _ in range(60):
            packed = Image.open(io.BytesIO(self.find(selector).screenshot_as_png)).convert("RGB")
            now = np.asarray(packed, float)
            if before is not None and np.array_equal(before, now):
                break
            before = now
            time.sleep(0.1)
        assert before is not None
        return before

    def serious(self) -> list[tuple[Any, ...]]:
        """What axe-core finds serious or critical: light and dark, on a phone and a wide screen."""
        self.js(AXE.read_text())
        code = "const done = arguments[0]; axe.run().then((found) => done(found.violations));"
        bad = []
        for width, theme in itertools.product((390, 1400), ("light", "dark")):
            self.size(width, 844)
            self.js("document.documentElement.dataset.theme = arguments[0]", theme)
            bad += [
                (width, theme, found["id"], [node["target"] for node in found["nodes"]])
                for found in self.driver.execute_async_script(code)
                if found["impact"] in ("serious", "critical")
            ]
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        return bad

    def downloaded(self, name: str) -> bytes:
        """The content of a file that was downloaded."""
        path = self.downloads / name
        # Chromium takes the name with an empty file before the content is whole.
        self.until(lambda: path.exists() and path.stat().st_size)
        return path.read_bytes()

    def type(self, selector: str, keys: str) -> None:
        """Press keys, with the focus on an element."""
        self.find(selector).send_keys(keys)

    def drag(self, selector: str, right: int, down: int, *, button: int = 0) -> None:
        """Drag from the middle of an element with a button of the mouse: 0 is left, 2 right."""
        chain = ActionChains(self.driver, duration=50)
        mouse = chain.w3c_actions.pointer_action
        chain.move_to_element_with_offset(self.find(selector), -40, -30)
        mouse.pointer_down(button=button)
        for _ in range(5):  # a hand moves in steps
            mouse.move_by(right // 5, down // 5)
        mouse.pointer_up(button=button)
        chain.perform()

    def size(self, width: int, height: int) -> None:
        """Show the page as on a screen of this size."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def requests(self) -> set[tuple[str, str]]:
        """Methods and addresses that were asked for since the last call."""
        logged = (json.loads(e["message"])["message"] for e in self.driver.get_log("performance"))
        sent = (m["params"] for m in logged if m["method"] == "Network.requestWillBeSent")
        return {(one["request"]["method"], one["request"]["url"]) for one in sent}


@contextmanager
def browser(downloads: Path, **size: int) -> Iterator[Browser]:
    """A browser, closed afterwards."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("no Chromium with its driver (Debian: chromium, chromium-driver)")
    opened = Browser(downloads, **size)
    try:
        yield opened
    finally:
        opened.driver.quit()
