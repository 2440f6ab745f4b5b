"""The real readers: Inspect and lm-evaluation-harness open what is exported.

Their requirements do not go with those of vLLM and of the tests, so they live in an environment of their own (`pip install inspect-ai
lm-eval`): EXPORT_READERS names its Python.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import polars as pl
import pytest

READERS = os.environ.get("EXPORT_READERS")

pytestmark = pytest.mark.skipif(READERS is None, reason="EXPORT_READERS names no Python that has inspect-ai and lm-eval")

INSPECT = """
import json, sys
from inspect_ai.log import list_eval_logs, read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
found = []
for info in list_eval_logs(sys.argv[1]):
    log = read_eval_log(info)
    one = read_eval_log_sample(info, log.samples[0].id, 2)
    cs = next(score for score in log.results.scores if score.name == "cs").metrics["all"].value
    found.append([log.eval.model, log.eval.task, log.eval.task_args["language"], log.status, cs, len(log.samples),
                  len(read_eval_log_sample_summaries(info)), one.epoch, one.messages[-1].role])
print(json.dumps(found))
"""

LM_EVAL = """
import glob, json, sys
from lm_eval import utils
names = glob.glob(sys.argv[1] + "/*/*")
results = json.load(open(utils.get_latest_filename(utils.get_results_filenames(names)), encoding="utf-8"))
tasks = [utils.get_file_task_name(name.rpartition("/")[2]) for name in utils.get_sample_results_filenames(names)]
print(json.dumps({"table": utils.make_table(results), "results": results["results"], "tasks": tasks}))
"""


def read(code: str, folder: Path) -> Any:
    assert READERS is not None
    ended = subprocess.run([READERS, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


def test_inspect_reads_every_log(inspect_logs: Path, run: Path) -> None:
    summary = pl.read_ipc(run / "scores" / "summary.arrow").filter(metric="cs", domain="all")
    cs = {(row["checkpoint_id"], f"wdct/{row['variant']}", row["language"]): row["value"] for row in summary.iter_rows(named=True)}
    found = read(INSPECT, inspect_logs)
    assert len(found) == 30
    for model, task, language, *rest in found:
        assert rest == ["success", cs[model, task, language], 10, 10, 2, "assistant"]


def test_lm_eval_makes_its_table_of_the_results(lm_eval_logs: Path) -> None:
    found = read(LM_EVAL, lm_eval_logs)
    assert set(found["tasks"]) == set(found["results"])
    for task, figures in found["results"].items():
        assert any(task in line and f"{figures['cs,none']:.4f}" in line for line in found["table"].splitlines() if "|" in line)
