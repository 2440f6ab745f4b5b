"""`wdct report RUN_A RUN_B`: on the items they share, and what differs beside the answers."""

from __future__ import annotations

import io
import json
import re
import sys
from typing import Any

import polars as pl
import pytest

from wdct_dist.items.load import BUNDLED
from wdct_dist.reporting import report_across
from wdct_dist.tables.arrow_file import read_table
from wdct_dist.tables.storage import Store


@pytest.fixture
def runs(shell: Any) -> tuple[str, str]:
    """Two runs of two checkpoints; the second has fewer items, other labels and one checkpoint under the name of the first's."""
    names = []
    for name, limit, checkpoints, more in (("a", 14, "[demo, other]", []), ("b", 12, "[demo, third]", ["prompt.labels=['1','2','3','4']"])):
        run = str(shell.folder / name)
        assert shell.evaluate(f"run_dir={run}", f"data.limit={limit}", f"checkpoints={checkpoints}", "orders=as_given", *more).code == 0
        names.append(run)
    return names[0], names[1]


def scores(run: str) -> pl.DataFrame:
    return pl.DataFrame(read_table(Store(run), "scores/items.arrow"))


def test_figures_and_differences_are_those_of_the_shared_items(shell: Any, runs: tuple[str, str]) -> None:
    ended = shell.wdct("report", *runs, "--format", "json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    one, other = (scores(run).filter(pl.col("checkpoint_id") == "demo") for run in runs)
    shared = other["item_id"].to_list()
    assert len(shared) == 12 < one.height
    table, differences, settings = found["tables"]
    rows = {row["run: checkpoint"]: row for row in table["rows"]}
    assert set(rows) == {"a: demo", "a: other", "b: demo", "b: third"}
    expected = one.filter(pl.col("item_id").is_in(shared))["match"].mean()
    assert rows["a: demo"]["CS"]["value"] == pytest.approx(expected, abs=6e-4)
    # one name is in both: only it is compared
    assert {row["compared"] for row in differences["rows"]} == {"a: demo − b: demo (direct, en)"}
    change = next(row for row in differences["rows"] if row["metric"] == "CS")["difference"]["value"]
    assert change == pytest.approx(expected - other["match"].mean(), abs=6e-4)
    differing = {row["setting"]: (row["a"], row["b"]) for row in settings["rows"]}
    assert differing["data.limit"] == (14, 12)
    assert differing["prompt.labels"][1] == "1, 2, 3, 4"
    assert "metrics.bootstrap_resamples" not in differing
    assert "run_dir" not in differing
    assert {name for name in differing if name.startswith("digest")} == {"digest of other", "digest of third"}
    assert "run a: 2 more items are left out" in found["facts"]


def test_items_of_one_name_in_other_words_are_not_the_same(shell: Any, runs: tuple[str, str]) -> None:
    store = Store(runs[1])
    items = pl.DataFrame(read_table(store, "items.arrow"))
    changed = items.with_columns(
        word_question=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit("Something else?")).otherwise("word_question")
    )
    (shell.folder / "b" / "items.arrow").unlink()
    changed.write_ipc(shell.folder / "b" / "items.arrow", compat_level=pl.CompatLevel.oldest())
    said = " ".join(shell.wdct("report", *runs).out.split())
    assert "11 items that all of them have in the same words" in said
    assert "run a: 3 more items are left out" in said
    assert "run b: 1 more items are left out" in said


def test_items_of_one_name_in_other_translations_are_not_the_same_where_both_runs_ask_in_them(shell: Any) -> None:
    bundled = [json.loads(line) for line in BUNDLED.read_text(encoding="utf-8").splitlines()[:4]]
    ways = {"a": "[en,zh]", "b": "[en,zh]", "c": "[en]"}
    for name, languages in ways.items():
        if name != "a":
            bundled[0]["translations"]["zh"]["deed"]["question"] = f"{name}?"
        path = shell.write(f"{name}.jsonl", "".join(json.dumps(item) + "\n" for item in bundled))
        settings = (f"run_dir={shell.folder / name}", f"data.path={path}", f"data.languages={languages}")
        assert shell.evaluate(*settings, "orders=as_given").code == 0

    def shared(*names: str) -> str:
        return str(json.loads(shell.wdct("report", *(str(shell.folder / name) for name in names), "--format", "json").out)["facts"])

    assert "3 items that all of them have in the same words" in shared("a", "b")
    assert "4 items that all of them have in the same words" in shared("a", "c")


def test_any_terminal_gets_every_format(shell: Any, runs: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", out)
        report_across([Store(run) for run in runs], form="md")
    assert "a: demo − b: demo" in out.buffer.getvalue().decode()


def test_where_no_checkpoint_has_a_name_in_both_all_are_compared(shell: Any, runs: tuple[str, str]) -> None:
    run = str(shell.folder / "c")
    assert shell.evaluate(f"run_dir={run}", "data.limit=12", "checkpoints=[new]", "orders=as_given").code == 0
    found = json.loads(shell.wdct("report", runs[0], run, "--format", "json").out)
    assert {row["compared"] for row in found["tables"][1]["rows"]} == {"a: demo − c: new (direct, en)", "a: other − c: new (direct, en)"}


def test_runs_of_other_variants_say_that_nothing_is_compared(shell: Any, runs: tuple[str, str]) -> None:
    run = str(shell.folder / "d")
    assert shell.evaluate(f"run_dir={run}", "data.limit=12", "checkpoints=[demo]", "variants=[joint]").code == 0
    said = " ".join(shell.wdct("report", runs[0], run).out.split())
    assert "No variant and language is in more than one run" in said


def test_one_run_twice_is_bad_input(shell: Any, runs: tuple[str, str]) -> None:
    ended = shell.wdct("report", runs[0], runs[0])
    assert ended.code == 2
    assert re.search(r"the same run is given twice \(.*\); give different ones", ended.err)
