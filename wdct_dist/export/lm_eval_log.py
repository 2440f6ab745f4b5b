"""Results and samples as lm-evaluation-harness logs them: FOLDER/<model>/results_<date>.json and samples_<task>_<date>.jsonl.

A task is a variant in a language; a document is an item, `doc_id` its place; each trial of it is a line of its own (`trial`). Metrics are
CS and PCS, by domain too (`cs_EthV`), with the ends of their intervals (`cs_low`). There is no standard error: intervals are percentiles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wdct_dist.export.cases import Case, Way

SCORES = {"cs": "match", "pcs": "pcs"}
"""Metric by the column of scores/items.arrow that has an item's value."""


def write_lm_eval(folder: Path, way: Way, cases: Iterable[Case], record: Mapping[str, Any]) -> Path:
    """Writes the samples of a way of asking, and adds its results to those of its checkpoint in `folder`. Returns the results' path."""
    date = str(record["start"]).replace(":", "-")
    target = folder / way.folder
    target.mkdir(parents=True, exist_ok=True)
    places: dict[str, int] = {}
    hashes = []
    with (target / f"samples_{way.task}_{date}.jsonl").open("w", encoding="utf-8") as stream:
        for case in cases:
            sample = _sample(way, case, places.setdefault(case.scores["item_id"], len(places)))
            hashes.append(sample["doc_hash"] + sample["prompt_hash"] + sample["target_hash"])
            stream.write(json.dumps(sample, ensure_ascii=False, allow_nan=False) + "\n")
    path = target / f"results_{date}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results = _added(before, way, record, len(places), _hash("".join(hashes)))
    path.write_text(json.dumps(results, ensure_ascii=False, indent=2), encoding="utf-8")
    return path


def _added(before: dict[str, Any], way: Way, record: Mapping[str, Any], num_items: int, task_hash: str) -> dict[str, Any]:
    task, session = way.task, record["sessions"][-1]
    figures: dict[str, float | str] = {"alias": task}
    for metric in SCORES:
        for (domain, end), value in way.figures(metric).items():
            parts = [metric, *([domain] if domain != "all" else []), *([end] if end != "value" else [])]
            figures[f"{'_'.join(parts)},none"] = value
    ours: dict[str, Any] = {
        "results": figures,
        "group_subtasks": [],
        "configs": {"task": task, "metadata": {"variant": way.variant, "language": way.language}},
        "versions": 0,
        "n-shot": 0,
        "higher_is_better": dict.fromkeys(SCORES, True),
        "n-samples": {"original": num_items, "effective": num_items},
        "task_hashes": task_hash,
    }
    checkpoint: Mapping[str, Any] = next((one for one in record["checkpoints"] if one["checkpoint_id"] == way.checkpoint_id), {})
    return {
        **{key: {**before.get(key, {}), task: value} for key, value in ours.items()},
        "config": {"model": "wdct_dist", "model_args": checkpoint, **record["seeds"]},
        "git_hash": session["git_commit"],
        "date": record["start"],
        "model_source": "wdct_dist",
        "model_name": way.checkpoint_id,
        "model_name_sanitized": way.folder,
        "start_time": record["start"],
        "end_time": record.get("end"),
    }


def _sample(way: Way, case: Case, place: int) -> dict[str, Any]:
    document: dict[str, Any] = {
        "item_id": case.scores["item_id"],
        "domain": case.scores["domain"],
        **{side: {"question": question, "options": options} for side, (question, options) in case.questions.items()},
    }
    sent = [[{"role": role, "content": content} for role, content in turn.messages] for turn in case.turns]
    replies = [[turn.text if turn.error is None else f"error: {turn.error}"] for turn in case.turns]
    return {
        "doc_id": place,
        "doc": document,
        "target": "",
        "arguments": {f"gen_args_{number}": {"arg_0": messages, "arg_1": {}} for number, messages in enumerate(sent)},
        "resps": replies,
        "filtered_resps": [reply for [reply] in replies],
        "filter": "none",
        "metrics": list(SCORES),
        "doc_hash": _hash(json.dumps(document, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(json.dumps(sent, ensure_ascii=False)),
        "target_hash": _hash(""),
        "trial": case.scores["trial"],
        **{metric: case.scores[column] for metric, column in SCORES.items()},
        "option_logprobs": [turn.option_logprobs for turn in case.turns],
        "reasoning": [turn.reasoning for turn in case.turns],
    }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
