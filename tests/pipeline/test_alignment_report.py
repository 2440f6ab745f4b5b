"""A run whose checkpoints came from alignment, as the files say: what scoring makes of it, and what the reports show."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.align.preferences import find_preferences, write_preferences
from wdct_dist.align.produced import find_descents, find_produced
from wdct_dist.cli.main import main
from wdct_dist.items.load import BUNDLED, read_records
from wdct_dist.reporting import score_run
from wdct_dist.tables import schema
from wdct_dist.tables.run_dir import read_provenance
from wdct_dist.tables.storage import Store

BRANCHES = ("base-word-seed0", "base-none-seed0")
CHECKPOINTS = ["base", "base-word-seed0/sft-epoch1", "base-word-seed0/sft", "base-word-seed0/dpo", "base-none-seed0/sft"]

CONFIG = {
    "checkpoints": CHECKPOINTS,
    "variants": ["direct", "cot"],
    "engine": {"kind": "scripted"},
    "dispatch": {"executor": "local"},
    "data": {"domains": ["Opinion", "NonEthV"]},
    "metrics": {"bootstrap_resamples": 20},
    "report": {"html": False},
}


def produce(run: Path, branch: str, folder: str, stage: str, parent: dict[str, Any], **more: Any) -> None:
    """A produced checkpoint as far as a report looks at it: its provenance, beside one that is under way."""
    record = {"branch": branch, "stage": stage, "seed": 0, "parent": parent, "data_hash": "0", **more}
    for name in (folder, f".tmp-{folder}"):
        (run / "align" / branch / name).mkdir(parents=True)
        (run / "align" / branch / name / "provenance.json").write_text(json.dumps(record))


def log_training(run: Path, branch: str, stage: str) -> None:
    rows = [
        {"branch": branch, "stage": stage, "step": step, "epoch": step / 10, "loss": None if step == 3 else 1 / step, "learning_rate": 1e-5}
        | ({"reward_margin": float("nan") if step == 5 else step / 10, "reward_accuracy": 0.5} if stage == "dpo" else {})
        for step in range(1, 21)
    ]
    folder = run / "align" / branch / "training"
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / f"{stage}.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema.TRAINING) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema.TRAINING))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a scripted evaluation, with what an alignment leaves there, scored."""
    folder = tmp_path_factory.mktemp("aligned")
    path = folder / "run"
    (folder / "c.yaml").write_text(json.dumps(CONFIG | {"run_dir": str(path)}))
    assert main(["evaluate", str(folder / "c.yaml")]) == 0
    store = Store(str(path))
    assert not store.exists("scores/change.arrow"), "there is no alignment yet"
    items = [record.item for record in read_records(BUNDLED) if record.item is not None]
    scores = pl.read_ipc(path / "scores" / "items.arrow")
    found = find_preferences(scores, items, "base", "word", held_out=0.25)
    write_preferences(store.child(f"align/{BRANCHES[0]}"), found)
    digests = {one["checkpoint_id"]: one["digest"] for one in read_provenance(store)["checkpoints"]}
    base = {"checkpoint_id": "base", "digest": digests["base"]}
    produce(path, BRANCHES[0], "sft-epoch1", "sft", base, epoch=1)
    produce(path, BRANCHES[0], "sft", "sft", base)
    produce(path, BRANCHES[0], "dpo", "dpo", {"checkpoint_id": "another name", "digest": digests["base-word-seed0/sft"]})
    produce(path, BRANCHES[1], "sft", "sft", base)
    for branch, stage in ((BRANCHES[0], "sft"), (BRANCHES[0], "dpo"), (BRANCHES[1], "sft")):
        log_training(path, branch, stage)
    score_run(store)
    return path


def test_scoring_writes_the_changes_of_every_produced_checkpoint(run: Path) -> None:
    table = pl.read_ipc(run / "scores" / "change.arrow")
    assert table.columns == schema.SCORES_CHANGE.names
    named = (
        table.select("checkpoint_id", "baseline_id", "branch", "target_side", "method", "epoch", "control")
        .unique(maintain_order=True)
        .rows()
    )
    assert named == [
        # trained on no item, and held against what the other branch was trained on
        (CHECKPOINTS[4], "base", BRANCHES[1], "word", "sft", None, True),
        (CHECKPOINTS[1], "base", BRANCHES[0], "word", "sft", 1, False),
        (CHECKPOINTS[2], "base", BRANCHES[0], "word", "sft", None, False),
        (CHECKPOINTS[3], "base", BRANCHES[0], "word", "dpo", None, False),
    ]
    assert set(table["variant"]) == {"direct", "cot"}
    direct = table.filter(metric="direct_change", domain="all", variant="direct", checkpoint_id=CHECKPOINTS[3])
    assert set(direct["split"]) == {"train", "held_out"}
    # the scripted engine answers by chance: about half of the answers are turned round
    assert direct.filter(split="train")["value"].item() == pytest.approx(0.4, abs=0.3)


def test_the_descent_of_checkpoints_is_told_by_digests(run: Path) -> None:
    store = Store(str(run))
    lines = [(one.child, one.parent, one.stage, one.epoch) for one in find_descents(store, read_provenance(store)["checkpoints"])]
    assert lines == [
        (CHECKPOINTS[4], "base", "sft", None),
        (CHECKPOINTS[1], "base", "sft", 1),
        (CHECKPOINTS[2], "base", "sft", None),
        (CHECKPOINTS[3], CHECKPOINTS[2], "dpo", None),
    ]
    assert len(find_produced(store)) == 4, "what is under way is none"


def test_the_terminal_report_has_change_rates_with_their_counts(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    said = capsys.readouterr().out
    for title in ("Changed answers, trained items", "Changed answers, held-out items", "Consistency before and after alignment"):
        assert title in said
    table = pl.read_ipc(run / "scores" / "change.arrow")
    [row] = table.filter(metric="indirect_change", domain="all", variant="direct", split="train", checkpoint_id=CHECKPOINTS[3]).to_dicts()
    assert f"{row['n_changed']}/{row['n']}" in said
    told = " ".join(said.split())
    assert re.search(rf" base-word-seed0/dpo: words turned to the target option for .* deeds for {row['value']:.3f} \[", told)
    assert "Control base-none-seed0/sft: words turned" in told
    assert max(map(len, said.splitlines())) <= 80


def test_the_page_has_charts_of_changes_trainings_and_descent(run: Path) -> None:
    pytest.importorskip("altair")
    assert main(["report", str(run), "--html"]) == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    charts = re.findall(r'<div class="chart" id="([^"]+)"', page)
    for name in ("change-train", "change-held-out", "log-sft-loss", "log-dpo-loss", "log-dpo-reward-margin", "family-tree"):
        assert name in charts
    assert "log-sft-reward-margin" not in charts
    assert '<a href="#alignment">' in page
    assert "Left out, since they are not finite: 1." in page
    # the answer first, of the control too, and the control is one in the chart
    assert page.index("words turned to the target option") < page.index("Do words and deeds agree?")
    [changed] = re.findall(r'id="change-train-spec">(.*?)</script>', page)
    drawn = {row["name"] for rows in json.loads(changed)["datasets"].values() for row in rows}
    assert "none-seed0/sft (control)" in drawn
    [spec] = re.findall(r'id="family-tree-spec">(.*?)</script>', page)
    tree = json.loads(spec)
    lines, points, _ = (tree["datasets"][layer["data"]["name"]] for layer in tree["layer"])
    nodes = {one["checkpoint"]: (one["depth"], one["parent"]) for one in points}
    assert nodes == {
        "base": (0, None),
        CHECKPOINTS[4]: (1, "base"),
        CHECKPOINTS[2]: (1, "base"),
        CHECKPOINTS[3]: (2, CHECKPOINTS[2]),
        CHECKPOINTS[1]: (1, "base"),
    }
    assert len(lines) == 8, "one to each child, and one down to it"
