"""The built site in a browser: search, and nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsers import browser

PAGES = ("index", "start/xray", "reference/commands", "reference/python/results")


@pytest.fixture(scope="module")
def opened(site: Path, tmp_path_factory: pytest.TempPathFactory):
    with browser(tmp_path_factory.mktemp("downloads")) as page:
        yield page


def test_the_search_works_where_there_is_no_network(opened, site: Path) -> None:
    opened.driver.get((site / "index.html").as_uri())
    opened.until(lambda: opened.js("return document.querySelector('label[for=__search]')"))
    opened.press("label[for=__search]")
    opened.until(lambda: opened.find(".md-search__input").is_displayed())
    opened.find(".md-search__input").send_keys("retry_window_s")
    found = opened.until(lambda: opened.all(".md-search-result__link"))
    assert any("clients.html" in str(link.get_attribute("href")) for link in found)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_fits_its_screen_and_asks_nobody(opened, site: Path, page: str, width: int) -> None:
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    opened.requests()
    opened.driver.get((site / f"{page}.html").as_uri())
    opened.until(lambda: opened.js("return document.readyState") == "complete")
    assert opened.js("return document.documentElement.scrollWidth") <= width
    asked = [url for _, url in opened.requests()]
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)
