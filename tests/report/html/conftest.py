"""A scripted run with hostile data, and its page as a parser of HTML reads it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from wdct_dist.cli.main import main

BUNDLED = Path(__file__).resolve().parents[3] / "wdct_dist" / "items" / "data" / "bundled.jsonl"

NASTY = '</script><script>document.title="broken"</script><img src=x onerror="document.title=1"><!-- <script> & "\' 模型'
"""A text that would do something in a page that does not escape it."""

NASTY_QUESTION = f"{NASTY} \u2028 \\"
"""The same with what a name may not have."""

CHECKPOINTS = ["run/step-100", "run/step-200", "run/step-300", NASTY]

CONFIG = {
    "checkpoints": CHECKPOINTS,
    "variants": ["direct", "cot", "augmented"],
    "augment": {"wordings": [0, 1]},
    "data": {"languages": ["en", "zh"], "extra_domains": [NASTY]},
    "prompt": {"reply_tokens": 60},
    "trials": 2,
    "engine": {"kind": "scripted"},
    "dispatch": {"executor": "local"},
    "metrics": {"bootstrap_resamples": 50},
    "report": {"title": f"A title {NASTY}"},
}


@dataclass
class Page(HTMLParser):
    """What is in a page: elements with their attributes, scripts, tables, and the text outside of scripts and styles."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    scripts: list[tuple[dict[str, str | None], str]] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    """Cells of each row of each table."""
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._in: str | None = None
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))
        self._in = tag if tag in ("script", "style") else self._in
        if tag == "tr":
            self.rows.append([])
        self._cell = tag in ("td", "th")
        if self._cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._in = None if tag == self._in else self._in
        self._cell = False

    def handle_data(self, data: str) -> None:
        if self._in == "script":
            attributes, before = self.scripts[-1]
            self.scripts[-1] = (attributes, before + data)
        elif self._in is None:
            self.text += data
            if self._cell:
                self.rows[-1][-1] += data

    def json(self, name: str) -> Any:
        """What the JSON script with this id holds."""
        [text] = [text for attributes, text in self.scripts if attributes.get("id") == name]
        return json.loads(text)


def nasty_items() -> str:
    """Twelve bundled items of two domains, and one whose every text is hostile, as JSON lines."""
    lines = BUNDLED.read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in (*lines[:6], *lines[24:30])]
    question = {"question": NASTY_QUESTION, "options": [f"yes {NASTY}", f"no {NASTY}"]}
    asked = {"word": question, "deed": question}
    records.append({"item_id": f"n {NASTY}", "domain": NASTY, **asked, "translations": {"zh": asked}})
    return "\n".join(json.dumps(record, ensure_ascii=False) for record in records)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a finished run, with its report.html."""
    folder = tmp_path_factory.mktemp("html")
    (folder / "items.jsonl").write_text(nasty_items(), encoding="utf-8")
    config = CONFIG | {"run_dir": str(folder / "run")}
    config["data"] = {**config["data"], "path": str(folder / "items.jsonl")}
    (folder / "c.yaml").write_text(json.dumps(config), encoding="utf-8")
    assert main(["evaluate", str(folder / "c.yaml")]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def page(run: Path) -> Page:
    found = Page()
    found.feed((run / "report.html").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="session")
def nasty() -> str:
    return NASTY
