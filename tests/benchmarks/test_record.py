"""The record of a benchmark: everything that is needed to repeat it, and nothing of where it was."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "record.py"


@pytest.fixture(name="record")
def load_record(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("record", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "record", module)  # where its dataclass looks for its own module
    spec.loader.exec_module(module)
    return module


def test_a_record_holds_the_repetitions_and_its_table_their_median_and_no_path(
    record: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "found" / "inference.json"
    monkeypatch.setattr(sys, "argv", ["/opt/secret/bench_inference.py", "--python", "/opt/secret/bin/python", "--json", str(target)])
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", type=Path)
    options = record.arguments(parser)

    record.write(options, "inference", [record.figure("ours / theirs", [1.5, 1.0, 1.25], target="≥ 1.2")], {"run": [{"s": 2.0}]})

    found = json.loads(target.read_text())
    assert found["figures"] == [{"what": "ours / theirs", "values": [1.5, 1.0, 1.25], "unit": "", "target": "≥ 1.2"}]
    assert found["raw"] == {"run": [{"s": 2.0}]}
    assert found["configuration"] == {"python": "python"}
    assert {"commit", "date", "hardware", "versions"} <= found.keys()
    assert "host" not in found["hardware"]
    table = target.with_suffix(".md").read_text()
    assert "| ours / theirs | 1.25 | 1 | 1.5 | 3 | ≥ 1.2 |" in table
    assert "secret" not in target.read_text() + table
    assert str(tmp_path) not in target.read_text() + table
