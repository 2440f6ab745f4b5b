"""report.html in a real headless Chromium: drawn without an error, its controls work, it fits a phone and a dark room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

_spec = spec_from_file_location("chromium", Path(__file__).resolve().parents[2] / "chromium.py")
assert _spec is not None
assert _spec.loader is not None
chromium = module_from_spec(_spec)
_spec.loader.exec_module(chromium)

pytestmark = pytest.mark.skipif(
    chromium.find_chromium() is None, reason="there is no Chromium on this machine (Debian: apt install chromium)"
)

Visit = Callable[[Any], Coroutine[Any, Any, Any]]


def visiting(visit: Visit) -> Any:
    """What `visit` finds in a fresh browser."""

    async def go() -> Any:
        async with chromium.browsing() as browser:
            return await visit(browser)

    return asyncio.run(go())


SELECT = """(() => {{
  const select = document.querySelector({selector!r});
  select.value = {value!r};
  select.dispatchEvent(new Event("change", {{bubbles: true}}));
  select.dispatchEvent(new Event("input", {{bubbles: true}}));
}})()"""


def test_it_is_drawn_without_a_complaint_and_its_controls_work(run: Path, nasty: str) -> None:
    async def visit(browser: Any) -> None:
        await browser.open(run / "report.html")
        assert await browser.ask("document.querySelectorAll('.chart svg').length") == 8
        assert await browser.ask("document.title") == f"A title {nasty}"
        dots = "[...document.querySelectorAll('#cs-chart .mark-symbol path')].map((one) => one.getAttribute('transform')).join()"
        before = await browser.ask(dots)
        await browser.ask(SELECT.format(selector="select[data-signal=domain]", value="Opinion"))
        await browser.ask("new Promise((done) => setTimeout(done, 300))")
        assert await browser.ask(dots) != before
        everything = await browser.ask("document.querySelector('#item-count').textContent")
        await browser.ask(SELECT.format(selector="#item-filter [name=kind]", value="differ"))
        assert await browser.ask("document.querySelector('#item-count').textContent") != everything
        kinds = await browser.ask("[...new Set([...document.querySelectorAll('.item .kind')].map((one) => one.textContent))]")
        assert kinds == ["words and deeds differ, in every order of the options:"]
        await browser.ask("document.querySelector('.item').open = true")
        await browser.ask("new Promise((done) => setTimeout(done, 100))")
        assert await browser.ask("document.querySelectorAll('.item[open] .replies pre').length") >= 4
        assert await browser.ask("document.querySelectorAll('img').length") == 0
        assert browser.complaints == []

    visiting(visit)


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(run: Path, width: int) -> None:
    async def visit(browser: Any) -> None:
        await browser.open(run / "report.html", width)
        assert await browser.ask("document.documentElement.scrollWidth") <= width

    visiting(visit)


def test_letters_stand_out_from_the_page_in_light_and_dark(run: Path) -> None:
    contrast = """(() => {
      const light = (colour) => {
        const [r, g, b] = colour.match(/[0-9.]+/g).slice(0, 3).map((part) => {
          const share = Number(part) / 255;
          return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const paper = light(getComputedStyle(document.body).backgroundColor);
      const found = [...document.querySelectorAll("p, h1, h2, h3, a, td, th, figcaption, .mark-text text")]
        .filter((one) => !one.closest("#heat-map .mark-text.role-mark"))
        .map((one) => light(getComputedStyle(one)[one instanceof SVGElement ? "fill" : "color"]));
      return Math.min(...found.map((ink) => (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05)));
    })()"""

    async def visit(browser: Any) -> None:
        for dark in (False, True):
            await browser.open(run / "report.html", dark=dark)
            background = await browser.ask("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
            assert await browser.ask(contrast) >= 4.5

    visiting(visit)
