"""Logs of Inspect (`inspect view`): one `.eval` file for each checkpoint and way of asking, without the package `inspect_ai`.

A `.eval` file (version 2 of the format) is a zip of JSON: `header.json`, `samples/<id>_epoch_<n>.json`, `summaries.json` and a journal. A
sample is an item, an epoch a trial; its messages are all that was asked and said, its scores CS and PCS.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from wdct_dist import __version__
from wdct_dist.export.cases import Case, Turn, Way
from wdct_dist.ids import stable_hash

VERSION = 2
SCORES = {"cs": "match", "pcs": "pcs"}
"""Scorer by the column of scores/items.arrow that has its value."""

SAID = ("domain", "parse_status_word", "parse_status_deed", "label_mass_word", "label_mass_deed", "flags")
SUMMED = ("id", "epoch", "input", "choices", "target", "scores")
"""What a sample's summary repeats of it, beside `SAID`."""

STOPPED = {"stop": "stop", "length": "max_tokens"}


def write_inspect(folder: Path, way: Way, cases: Iterable[Case], record: Mapping[str, Any]) -> Path:
    """Writes the log of a way of asking into `folder`; `record` is provenance.json. Returns its path."""
    path = folder / f"{way.folder}_{way.task}.eval"
    summaries = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        for case in cases:
            sample = _sample(way, case)
            _add(log, f"samples/{sample['id']}_epoch_{sample['epoch']}.json", sample)
            said = {key: case.scores[key] for key in SAID}
            kept = {key: sample[key] for key in SUMMED}
            summaries.append({**kept, "metadata": said, "completed": True, "message_count": len(sample["messages"])})
        spec = _spec(way, record, summaries)
        plan = {"name": "plan", "steps": [], "config": {}}
        _add(log, "_journal/start.json", {"version": VERSION, "eval": spec, "plan": plan})
        _add(log, "summaries.json", summaries)
        header = {
            "version": VERSION,
            "status": "success" if way.finished else "cancelled",
            "eval": spec,
            "plan": plan,
            "results": _results(way, summaries),
        }
        _add(log, "header.json", header | {"stats": {"started_at": record["start"], "completed_at": record.get("end") or ""}})
    return path


def _sample(way: Way, case: Case) -> dict[str, Any]:
    scores = case.scores
    messages = [message for turn in case.turns for message in _messages(way, turn)]
    (word, options), (deed, deed_options) = case.questions["word"], case.questions["deed"]
    options_chosen = {side: scores[f"{side}_option"] for side in case.questions}
    answer = ", ".join(f"{side}: {'-' if option is None else option + 1}" for side, option in options_chosen.items())
    probs = {f"{side}_probs": scores[f"{side}_probs"] for side in case.questions}
    last = case.turns[-1] if case.turns else None
    stopped = [] if last is None else [{"message": messages[-1], "stop_reason": STOPPED.get(last.finish_reason or "", "unknown")}]
    return {
        "id": scores["item_id"],
        "epoch": scores["trial"] + 1,
        "input": f"{word}\n\n{deed}",
        "choices": [f"{one} / {other}" for one, other in zip(options, deed_options, strict=True)],
        "target": "",
        "messages": messages,
        "output": {"model": way.checkpoint_id, "choices": stopped, "completion": "" if last is None else last.text or ""},
        "scores": {
            name: {"value": scores[column], "answer": answer, "metadata": probs}
            for name, column in SCORES.items()
            if scores[column] is not None
        },
        "metadata": {
            **{key: scores[key] for key in SAID},
            "prompts": [
                {
                    "prompt_id": turn.prompt_id,
                    "side": turn.side,
                    "option_by_label": dict(turn.shown),
                    "option_logprobs": turn.option_logprobs,
                }
                for turn in case.turns
            ],
        },
    }


def _messages(way: Way, turn: Turn) -> list[dict[str, Any]]:
    asked = [
        {"id": stable_hash([turn.prompt_id, place]), "role": role, "content": content}
        | ({"source": "generate", "model": way.checkpoint_id} if role == "assistant" else {})
        for place, (role, content) in enumerate(turn.messages)
    ]
    content: Any = turn.text or ("" if turn.error is None else f"error: {turn.error}")
    if turn.reasoning is not None:
        content = [{"type": "reasoning", "reasoning": turn.reasoning}, {"type": "text", "text": content}]
    said = {"id": stable_hash([turn.prompt_id, "reply"]), "role": "assistant", "content": content}
    return [*asked, said | {"source": "generate", "model": way.checkpoint_id}]


def _spec(way: Way, record: Mapping[str, Any], summaries: list[dict[str, Any]]) -> dict[str, Any]:
    data = record.get("data", {})
    session = record["sessions"][-1]
    revision = {"type": "git", "origin": "", "commit": session["git_commit"]} if session.get("git_commit") else None
    task = f"wdct/{way.variant}"
    return {
        "eval_id": stable_hash([record["start"], way.checkpoint_id, task, way.language]),
        "run_id": stable_hash([record["start"], record["prompts"]["digest"]]),
        "created": record["start"],
        "task": task,
        "task_id": stable_hash([task, way.language]),
        "task_version": 0,
        "task_args": {"language": way.language},
        "dataset": {
            "name": Path(data.get("path", "items")).name,
            "samples": len({one["id"] for one in summaries}),
            "sample_ids": list(dict.fromkeys(one["id"] for one in summaries)),
        },
        "model": way.checkpoint_id,
        "model_args": {},
        "config": {"epochs": max((one["epoch"] for one in summaries), default=1)},
        "packages": {"wdct_dist": __version__},
        **({} if revision is None else {"revision": revision}),
        "metadata": {"checkpoint": next((one for one in record["checkpoints"] if one["checkpoint_id"] == way.checkpoint_id), {})},
    }


def _results(way: Way, summaries: list[dict[str, Any]]) -> dict[str, Any]:
    scores = []
    for name in dict.fromkeys([*SCORES, *(row["metric"] for row in way.summary)]):  # a viewer shows the first ones
        named = {domain if end == "value" else f"{domain} {end}": value for (domain, end), value in way.figures(name).items()}
        metrics = {key: {"name": key, "value": value, "params": {}} for key, value in named.items()}
        if metrics:
            scores.append({"name": name, "scorer": name, "params": {}, "metrics": metrics})
    return {"total_samples": len(summaries), "completed_samples": len(summaries), "scores": scores}


def _add(log: zipfile.ZipFile, name: str, value: Any) -> None:
    log.writestr(name, json.dumps(value, ensure_ascii=False, allow_nan=False))
