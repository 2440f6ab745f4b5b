"""A run in Weights & Biases: what the real client writes offline is what is in the run's tables."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

Wdct = Callable[..., subprocess.CompletedProcess[str]]

SPEC = importlib.util.find_spec("wandb")

pytestmark = pytest.mark.skipif(SPEC is None or SPEC.origin is None, reason="wandb is not installed (the extra `test` brings it)")

OFFLINE = {"WANDB_MODE": "offline"}

READ = """
import json, struct, sys
from wandb.proto import wandb_internal_pb2

# a LevelDB log: after 7 bytes of its own, blocks of 32 KiB with pieces of records (checksum, length, kind: whole, first, middle, last)
data, at, piece, found = open(sys.argv[1], "rb").read(), 7, b"", {"config": {}, "summary": {}, "history": [], "files": []}
while at < len(data):
    if 32768 - at % 32768 < 7:
        at += 32768 - at % 32768
        continue
    length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
    piece, at = piece + data[at + 7 : at + 7 + length], at + 7 + length
    if kind not in (1, 4):
        continue
    record, piece = wandb_internal_pb2.Record.FromString(piece), b""
    what = record.WhichOneof("record_type")
    name = lambda item: item.key or "/".join(item.nested_key)
    if what == "run":
        found["run"] = [record.run.project, record.run.run_id, record.run.display_name, list(record.run.tags)]
        found["config"] |= {name(item): json.loads(item.value_json) for item in record.run.config.update}
    elif what == "config":
        found["config"] |= {name(item): json.loads(item.value_json) for item in record.config.update}
    elif what == "summary":
        found["summary"] |= {name(item): json.loads(item.value_json) for item in record.summary.update}
    elif what == "history":
        found["history"].append([record.history.step.num, {name(item): json.loads(item.value_json) for item in record.history.item}])
    elif what == "artifact":
        found["files"] = [entry.path for entry in record.artifact.manifest.contents]
print(json.dumps(found))
"""


def read(folder: Path) -> dict[str, Any]:
    """What an offline run holds."""
    [path] = folder.glob("run-*.wandb")
    ended = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(json.loads(ended.stdout))


def offline_runs(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*"))


def test_a_run_s_settings_figures_tables_and_files_are_those_on_disk(run: Path, wdct: Wdct, tmp_path: Path) -> None:
    ended = wdct(sys.executable, "track", str(run), "--to", "wandb", "--project", "team/consistency", **OFFLINE)
    assert ended.returncode == 0, ended.stderr
    [folder] = offline_runs(tmp_path)
    run_id = folder.name.rpartition("-")[2]
    assert ended.stdout == f"{run}: Weights & Biases run {run_id} in team/consistency: `wandb sync {folder}` sends it\n"
    found = read(folder)
    assert found["run"] == ["consistency", run_id, "run", []]
    assert found["config"]["data.languages"] == '["en", "zh"]'
    assert found["config"]["wdct.state"] == "complete"

    summary = pl.read_ipc(run / "scores" / "summary.arrow")
    cs = summary.filter(metric="cs", variant="direct", language="en", domain="all")
    figures = dict(cs.select("checkpoint_id", "value").iter_rows())
    curve = {step: row["cs/run1/direct/en/all"] for step, row in found["history"] if "cs/run1/direct/en/all" in row}
    assert curve == {0: figures["run1"], 100: figures["run1-100"], 200: figures["run1-200"]}
    assert found["summary"]["cs/run1/direct/en/all"] == figures["run1-200"]
    assert found["summary"]["cs/org-one/direct/en/all"] == figures["org/one"]
    assert figures["org-one"] in {found["summary"][name] for name in found["summary"] if name.startswith("cs/org-one-")}

    [table] = (folder / "files" / "media" / "table").glob("summary_*.table.json")
    shown = json.loads(table.read_text())
    assert pl.DataFrame(shown["data"], schema=shown["columns"], orient="row").equals(summary.cast({"n": pl.Int64}))
    [items] = (folder / "files" / "media" / "table").glob("items_*.table.json")
    assert "a/../b: <模型>" in {row[0] for row in json.loads(items.read_text())["data"]}
    assert {"report.html", "config.yaml", "provenance.json", "scores/summary.arrow", "scores/items.arrow"} <= set(found["files"])
    for path in folder.rglob("*"):
        assert not path.is_file() or b"SECRET" not in path.read_bytes(), path


def test_an_evaluation_that_ends_with_a_tracker_in_trouble_is_complete(wdct: Wdct, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(
        "checkpoints: [a]\nrun_dir: run\nengine: {kind: scripted}\ndata: {limit: 2}\ndispatch: {executor: local}\nreport: {html: false}\n"
        "tracking: {wandb: consistency}\n"
    )
    ended = wdct(sys.executable, "evaluate", "c.yaml")
    assert ended.returncode == 0, ended.stderr
    assert "Weights & Biases has no key here" in ended.stderr
    assert "`wdct track run --to wandb` tries again" in ended.stderr
    assert "prompts done" in ended.stderr.splitlines()[-1]
    # the same command, with the tracker out of trouble, and `track`: one and the same run
    for again in (["evaluate", "c.yaml"], ["track", "run", "--to", "wandb", "--project", "consistency"]):
        assert wdct(sys.executable, *again, **OFFLINE).returncode == 0
    first, second = (read(folder)["run"] for folder in offline_runs(tmp_path))
    assert first == second
    assert first[0] == "consistency"
