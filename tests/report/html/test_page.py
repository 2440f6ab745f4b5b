"""report.html of a whole run, as a parser of HTML reads it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.cli.main import main
from wdct_dist.report.warnings import warnings
from wdct_dist.reporting import rewrite_html
from wdct_dist.tables.run_dir import read_config
from wdct_dist.tables.storage import Store


@pytest.fixture(scope="session")
def summary(run: Path) -> pl.DataFrame:
    return pl.read_ipc(run / "scores" / "summary.arrow")


def test_figures_of_charts_are_those_of_the_summary(page: Any, summary: pl.DataFrame) -> None:
    figures = page.json("figures")
    shown = summary.filter(pl.col("metric").is_in(["cs", "pcs"]) & ~pl.col("variant").str.contains("/") & pl.col("value").is_not_null())
    expected = {
        (row["checkpoint_id"], f"{row['variant']}, {row['language']}", row["domain"], row["metric"]): (
            row["value"], row["ci_low"], row["ci_high"], row["n"],
        )
        for row in shown.iter_rows(named=True)
    }  # fmt: skip
    found = {
        (one["checkpoint"], one["asked"], one["domain"], one["metric"]): (one["value"], one["low"], one["high"], one["items"])
        for one in figures
    }
    assert len(found) == len(figures) == shown.height > 100
    assert found == expected


def test_figures_of_tables_are_those_of_the_summary(page: Any, summary: pl.DataFrame) -> None:
    wanted = summary.filter(
        (pl.col("domain") == "all") & (pl.col("variant") == "direct") & (pl.col("language") == "en") & pl.col("metric").is_in(["cs", "pcs"])
    )
    for (checkpoint_id,), rows in wanted.group_by("checkpoint_id", maintain_order=True):
        cells = [f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]" for row in rows.iter_rows(named=True)]
        assert [f"{checkpoint_id}, direct, en", *cells] in [row[:3] for row in page.rows]


def test_best_and_worst_are_named_in_a_sentence(page: Any, summary: pl.DataFrame) -> None:
    cs = summary.filter(domain="all", metric="cs", variant="direct", language="en").sort("value")
    assert f"direct, en: CS is highest for {cs['checkpoint_id'][-1]} ({cs['value'][-1]:.3f}" in page.text


def test_warnings_are_those_of_the_terminal(page: Any, run: Path, summary: pl.DataFrame) -> None:
    found = warnings(summary, read_config(Store(str(run))).report)
    assert found
    for warning in found:
        assert warning in page.text


def test_what_models_and_data_say_is_text(page: Any, nasty: str) -> None:
    assert {tag for tag, _ in page.elements} & {"img", "iframe", "object", "link", "base"} == set()
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    assert len(page.scripts) == len([1 for attributes, _ in page.scripts if attributes.get("type") == "application/json"]) + 2
    assert f"A title {nasty}" in page.text
    assert any(row[0].startswith(nasty) for row in page.rows)
    sample = page.json("sample")
    assert sample["questions"][f"en n {nasty}"]["word"]["options"][0] == f"yes {nasty}"
    replies = [reply["text"] for one in sample["cases"] for reply in one["word"]["replies"]]
    assert any("<script>" in text for text in replies)


def test_the_page_asks_for_nothing_and_runs_only_its_own_scripts(page: Any) -> None:
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    [policy] = [attributes["content"] for tag, attributes in page.elements if tag == "meta" and "http-equiv" in attributes]
    assert policy.startswith("default-src 'none'")
    own = [text for attributes, text in page.scripts if "type" not in attributes]
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in own]
    assert policy.partition("script-src ")[2].split() == hashes


def test_every_chart_says_what_it_shows(page: Any) -> None:
    charts = [attributes["id"] for tag, attributes in page.elements if tag == "div" and attributes.get("class") == "chart"]
    assert charts == [
        "cs-chart",
        "pcs-chart",
        "heat-map",
        "cs-training",
        "pcs-training",
        "words-deeds",
        "differences-map",
        "effects-chart",
        "timeline",
    ]
    for name in charts:
        assert page.json(f"{name}-spec")["description"]


def test_items_are_a_sample_of_every_checkpoint_with_all_that_was_said(page: Any, run: Path) -> None:
    sample = page.json("sample")
    scores = pl.read_ipc(run / "scores" / "items.arrow")
    assert f"{len(sample['cases']):,} of {scores.height:,} rows" in page.text
    assert {one["checkpoint_id"] for one in sample["cases"]} == set(scores["checkpoint_id"])
    key = ["checkpoint_id", "variant", "language", "trial", "item_id"]
    rows = {tuple(row[name] for name in key): row for row in scores.iter_rows(named=True)}
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).collect()
    said = {(row["checkpoint_id"], row["prompt_id"], row["trial"]): row for row in answers.iter_rows(named=True)}
    for one in sample["cases"]:
        row = rows[tuple(one[name] for name in key)]
        for side in ("word", "deed"):
            assert one[side]["probs"] == row[f"{side}_probs"]
            assert len(one[side]["replies"]) == row["num_options"]  # every rotation of the options
            for reply in one[side]["replies"]:
                answer = said[one["checkpoint_id"], reply["prompt"], one["trial"]]
                assert (reply["text"], reply["reasoning"]) == (answer["text"], answer["reasoning"])


def test_how_it_was_run_is_said(page: Any, run: Path) -> None:
    assert "bootstrap_resamples: 50" in page.text
    assert "bootstrap_seed" in page.text
    assert re.search(r"prompts digest\s*[0-9a-f]{64}", page.text)
    assert "2503.07003" in page.text
    assert "Nothing went wrong on the way" in page.text
    # engines, starts and swaps
    assert ["none", "float64", "-", "1", "1", "3"] in page.rows
    spans = page.json("timeline-spec")["datasets"]
    # a scripted engine may load in less than the millisecond that events tell
    assert "evaluating" in {span["state"] for spans in spans.values() for span in spans}


def test_what_went_wrong_and_the_sessions_stand_in_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run_dir: {tmp_path}/run\ndata: {{limit: 2}}\ncheckpoints: [good, <bad>]\ndispatch: {{executor: local}}\n"
        "engine: {kind: scripted, scripted: {fail_start: bad}}\nmetrics: {bootstrap_resamples: 10}\n"
    )
    assert main(["evaluate", str(config)]) == 3
    for shard in (tmp_path / "run" / "answers").iterdir():
        shard.unlink()
    assert main(["evaluate", str(config)]) == 3
    text = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert re.search(r"What went wrong.*<td>checkpoint failed</td><td>-</td><td>&lt;bad&gt;</td><td>[^<]*fail_start", text, re.DOTALL)
    assert "Nothing went wrong" not in text
    # the two sessions stand beside each other, in the table and in the timeline
    [spec] = re.findall(r'id="timeline-spec">(.*?)</script>', text)
    assert {row["session"] for rows in json.loads(spec)["datasets"].values() for row in rows} == {1, 2}
    assert "What the API was asked for" not in text
    assert len(re.findall(r"<th scope=\"row\">[12], 20\d\d-", text)) == 2


def test_report_writes_the_page_again_when_asked_to(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = run / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert main(["report", str(run)]) == 0
    assert not page.exists()
    assert main(["report", str(run), "--html"]) == 0
    assert page.read_bytes() == before
    assert f"report.html is in {run}" in capsys.readouterr().err


def test_score_writes_the_page_again(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    page = run / "report.html"
    before = page.read_bytes()
    page.write_text("of older tables")
    assert main(["score", str(run)]) == 0
    assert page.read_bytes() == before
    monkeypatch.setattr("wdct_dist.report.html.NEEDED", ("no_such_library",))
    rewrite_html(Store(str(run)))
    assert page.read_bytes() == before
    assert "The tables are new, report.html is not." in capsys.readouterr().err


def test_score_writes_no_page_that_nobody_wants(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run_dir: {tmp_path}/run\ndata: {{limit: 2}}\ncheckpoints: [a]\nengine: {{kind: scripted}}\ndispatch: {{executor: local}}\n"
        "report: {html: false}\n"
    )
    assert main(["evaluate", str(config)]) == 0
    assert main(["score", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("form", ["json", "csv", "md", "latex"])
def test_report_prints_the_format_that_is_asked_for(
    form: str, run: Path, summary: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["report", str(run), "--format", form]) == 0
    text = capsys.readouterr().out
    starts = {"json": "{", "csv": "table,name,column,value,low,high\n", "md": "# A title", "latex": "% A title"}
    assert text.startswith(starts[form])
    cs = summary.filter(domain="all", metric="cs", variant="direct", language="en", checkpoint_id="run/step-100")["value"][0]
    assert f"{cs:.3f}".rstrip("0") in text
    assert "模型" in text  # in the name of a checkpoint


def test_without_the_extra_a_report_says_what_to_install_and_a_run_goes_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wdct_dist.report.html.NEEDED", ("no_such_library",))
    assert main(["report", str(run), "--html"]) == 2
    said = "report.html needs no_such_library, which is not installed: `pip install 'wdct_dist[html]'`."
    assert said in capsys.readouterr().err
    config = tmp_path / "c.yaml"
    config.write_text(
        f"run_dir: {tmp_path}/run\ndata: {{limit: 2}}\ncheckpoints: [a]\nengine: {{kind: scripted}}\ndispatch: {{executor: local}}"
    )
    assert main(["evaluate", str(config)]) == 0
    assert said in capsys.readouterr().err
    assert main(["evaluate", str(config), "report.html=false"]) == 0
    assert said not in capsys.readouterr().err
    assert not (tmp_path / "run" / "report.html").exists()


def test_fifty_checkpoints_stay_under_5_megabytes(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    names = ", ".join(f"training/step-{100 * number}" for number in range(50))
    config.write_text(
        f"run_dir: {tmp_path}/run\ncheckpoints: [{names}]\nengine: {{kind: scripted}}\n"
        "variants: [direct, cot, joint]\ndata: {limit: 8}\ndispatch: {executor: local}\nmetrics: {bootstrap_resamples: 10}\n"
    )
    assert main(["evaluate", str(config)]) == 0
    assert (tmp_path / "run" / "report.html").stat().st_size < 5_000_000
