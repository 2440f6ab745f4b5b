"""report.html in a real headless Chromium: drawn without an error, its controls work, it fits a phone and a dark room."""

from __future__ import annotations

import asyncio
import json
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
        assert await browser.ask("document.querySelectorAll('.chart svg').length") == 9
        assert await browser.ask("document.title") == f"A title {nasty}"
        dots = "[...document.querySelectorAll('#cs-chart .mark-symbol path')].map((one) => one.getAttribute('transform')).join()"
        before = await browser.ask(dots)
        await browser.ask(SELECT.format(selector="select[data-signal=domain]", value="Opinion"))
        assert await browser.becomes(f"{dots} !== {json.dumps(before)}", True)
        everything = await browser.ask("document.querySelector('#item-count').textContent")
        await browser.ask(SELECT.format(selector="#item-filter [name=kind]", value="differ"))
        assert await browser.ask("document.querySelector('#item-count').textContent") != everything
        kinds = await browser.ask("[...new Set([...document.querySelectorAll('.item .kind')].map((one) => one.textContent))]")
        assert kinds == ["words and deeds differ, in every order of the options:"]
        await browser.ask("document.querySelector('.item').open = true")
        assert await browser.becomes("document.querySelectorAll('.item[open] .replies pre').length >= 4", True)
        assert await browser.ask("document.querySelectorAll('img').length") == 0
        assert browser.complaints == []

    visiting(visit)


@pytest.mark.parametrize("width", [400, 1400])
def test_nothing_is_wider_than_the_window(run: Path, width: int) -> None:
    async def visit(browser: Any) -> None:
        await browser.open(run / "report.html", width)
        assert await browser.ask("document.documentElement.scrollWidth") <= width

    visiting(visit)


def test_a_phone_shows_the_names_of_checkpoints_whole(run: Path) -> None:
    async def visit(browser: Any) -> None:
        await browser.open(run / "report.html", 400)
        shown = set(await browser.ask("[...document.querySelectorAll('#cs-chart .role-axis-label text')].map((one) => one.textContent)"))
        names = {one["name"] for one in await browser.ask("read('figures')")}
        assert {name for name in names if len(name) <= 30} <= shown

    visiting(visit)


def test_one_checkpoint_and_domain_of_words_against_deeds_is_drawn_at_a_time(run: Path) -> None:
    dots = "document.querySelectorAll('#words-deeds .mark-symbol.role-mark path').length"

    async def visit(browser: Any) -> None:
        await browser.open(run / "report.html")
        groups = next(rows for rows in (await browser.ask("read('words-deeds-spec')"))["datasets"].values() if "item_id" in rows[0])
        way = await browser.ask("document.querySelector('[data-signal=asked]').value")

        def expected(checkpoint_id: str, domain: str | None = None) -> int:
            shown = [one for one in groups if (one["checkpoint_id"], one["asked"]) == (checkpoint_id, way)]
            return sum(len(one["word"]) for one in shown if domain in (None, one["domain"]))

        wanted = [expected("run/step-100"), expected("run/step-300"), expected("run/step-300", "Opinion")]
        counts = [await browser.ask(dots)]
        for count, signal, value in ((wanted[1], "checkpoint", "run/step-300"), (wanted[2], "domain", "Opinion")):
            await browser.ask(SELECT.format(selector=f"#words-and-deeds [data-signal={signal}]", value=value))
            counts.append(await browser.becomes(dots, count))
        assert counts == wanted
        assert 0 < counts[2] < counts[1]
        # the same choice in another place of the page follows
        assert await browser.ask("document.querySelector('#answer [data-signal=domain]').value") == "Opinion"
        assert browser.complaints == []

    visiting(visit)


def test_everything_can_be_reached_and_chosen_with_the_keyboard_alone(run: Path) -> None:
    place = """(() => {
      const one = document.activeElement;
      const every = [...document.querySelectorAll("a[href], select, input, button, summary, [tabindex='0']")];
      const stops = every.filter((stop) => stop.checkVisibility());
      const named = one.labels?.length ? one.labels[0].textContent : one.getAttribute("aria-label") ?? one.textContent;
      const outline = getComputedStyle(one);
      return {stop: stops.indexOf(one), stops: stops.length, name: named.trim(), choice: one.matches("select, input"),
        key: one.name || one.dataset.signal || null, seen: outline.outlineStyle !== "none" && parseFloat(outline.outlineWidth) > 0};
    })()"""

    async def press(browser: Any, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            await browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    async def visit(browser: Any) -> None:
        await browser.open(run / "report.html")
        visited = []
        for _ in range(200):
            await press(browser, "Tab", 9)
            visited.append(await browser.ask(place))
            if visited[-1]["stop"] + 1 == visited[-1]["stops"]:
                break
            if visited[-1]["key"] == "kind":
                before = await browser.ask("document.querySelector('#item-count').textContent")
                await press(browser, "ArrowDown", 40)
                assert await browser.ask("document.querySelector('#item-filter [name=kind]').value") == "differ"
                assert await browser.ask("document.querySelector('#item-count').textContent") != before
        # in the order of the page, none left out, each with a name and a visible focus
        assert [one["stop"] for one in visited] == list(range(visited[-1]["stops"]))
        assert [one for one in visited if not one["name"] or not one["seen"]] == []
        keys = [one["key"] for one in visited if one["choice"] and one["key"]]
        filters = ["kind", "domain", "checkpoint_id", "variant", "text"]
        assert keys == ["domain", "asked", "checkpoint", "domain", "asked", "group", *filters]
        assert browser.complaints == []

    visiting(visit)


def test_letters_stand_out_from_the_page_in_light_and_dark(run: Path) -> None:
    contrast = """(() => {
      const parts = (colour) => colour.match(/[0-9.]+/g).map(Number);
      const light = (colour) => {
        const [r, g, b] = parts(colour).slice(0, 3).map((part) => {
          const share = part / 255;
          return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const behind = (one) => {
        const colour = getComputedStyle(one).backgroundColor;
        return (parts(colour)[3] ?? 1) === 0 ? behind(one.parentElement) : light(colour);
      };
      const letters = (one) => [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
      const found = [...document.querySelectorAll("body *")]
        .filter((one) => (letters(one) || one.matches("select, input")) && one.checkVisibility())
        .filter((one) => !one.closest("#heat-map .mark-text.role-mark"))  // on cells of their own colour; see charts.heat_map
        .map((one) => {
          const [ink, paper] = [light(getComputedStyle(one)[one instanceof SVGElement ? "fill" : "color"]), behind(one)];
          return [(Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05), one.outerHTML.slice(0, 80)];
        });
      const kinds = [...new Set(found.map(([, html]) => html.match(/^<(\\w+)/)[1]))];
      return {count: found.length, kinds, weak: found.filter(([ratio]) => ratio < 4.5)};
    })()"""

    async def visit(browser: Any) -> None:
        for dark in (False, True):
            await browser.open(run / "report.html", dark=dark)
            background = await browser.ask("getComputedStyle(document.body).backgroundColor")
            assert background == ("rgb(22, 24, 27)" if dark else "rgb(255, 255, 255)")
            await browser.ask("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            empty = "[...document.querySelectorAll('.item .sides')].filter((one) => one.childElementCount === 0).length"
            assert await browser.becomes(empty, 0) == 0
            found = await browser.ask(contrast)
            assert found["weak"] == []
            assert found["count"] > 500
            assert {"p", "h1", "td", "th", "a", "select", "input", "button", "pre", "summary", "figcaption", "text", "dt"} <= set(
                found["kinds"]
            )

    visiting(visit)


def test_on_paper_it_is_dark_on_white_without_its_controls(run: Path) -> None:
    async def visit(browser: Any) -> None:
        await browser.open(run / "report.html", dark=True)
        await browser.call("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        assert await browser.ask("getComputedStyle(document.querySelector('h1')).color") == "rgb(26, 26, 26)"
        shown = "[...document.querySelectorAll('select, input, button, nav')].filter((one) => one.checkVisibility()).length"
        assert await browser.ask(shown) == 0
        assert (await browser.call("Page.printToPDF"))["data"]
        assert browser.complaints == []

    visiting(visit)
