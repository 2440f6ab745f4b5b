"""Paraphrases that a model writes before the evaluation, from the first prompt to the report: with the scripted engine and a real model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.cli.main import main

CONFIG = """
run_dir: {run}
data: {{path: {data}}}
variants: [augmented]
augment: {{label_sets: [letters], wordings: [0], paraphrases: [0, 1, 2, 3]}}
dispatch: {{executor: local}}
metrics: {{bootstrap_resamples: 20}}
sampling: {{max_new_tokens: 100}}
engine: {{dtype: float32, max_model_len: 1024, cpu_cache_gib: 1}}
"""

ITEMS = [
    {
        "word": {
            "question": "When an old but sound public building no longer suits its use, is it wiser to convert it or to replace it?",
            "options": ["To replace it with something designed for today", "To convert it and keep the old fabric"],
        },
        "deed": {
            "question": "The old town hall no longer suits its use. Do you convert it or replace it?",
            "options": ["Replace it with something new", "Convert it and keep the old building"],
        },
    },
    {
        "word": {
            "question": "What should decide who plays in youth matches?",
            "options": ["Ability: the strongest should play the most", "Fairness of turns: all should play equally long"],
        },
        "deed": {
            "question": "You coach the youth team on Sunday. Who plays?",
            "options": ["The strongest play the most", "All play equally long"],
        },
    },
]


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., tuple[Path, list[dict[str, Any]]]]:
    """Evaluates `ITEMS` under overrides; returns the run's directory and the lines of its paraphrases.jsonl."""

    def run(*overrides: str) -> tuple[Path, list[dict[str, Any]]]:
        data, config, folder = tmp_path / "items.jsonl", tmp_path / "c.yaml", tmp_path / "run"
        rows = [{"item_id": f"item-{number}", "domain": "Opinion", **item} for number, item in enumerate(ITEMS)]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        config.write_text(CONFIG.format(run=folder, data=data))
        assert main(["evaluate", str(config), *overrides]) == 0
        return folder, [json.loads(line) for line in (folder / "paraphrases.jsonl").read_text().splitlines()]

    return run


def asked(run: Path, number: int) -> set[tuple[str, str]]:
    """Item and side of the prompts under a paraphrase."""
    prompts = pl.read_ipc(run / "prompts.arrow").filter(pl.col("variant").str.contains(f"/paraphrase={number}/"))
    return set(prompts.select("item_id", "side").iter_rows())


def test_what_is_refused_is_kept_with_its_reason_counted_and_left_out(
    evaluate: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run, lines = evaluate("engine.kind=scripted", "checkpoints=[alpha]", "augment.paraphraser=writer")
    assert len(lines) == 2 * 2 * 3
    assert all(line["question"] is None and line["refused"] and line["reply"] for line in lines)
    printed = capsys.readouterr()
    assert "paraphrases: 0 of 12 that the paraphraser wrote are kept" in printed.err
    assert "paraphrase=1/system=none: 2 items left out: no paraphrase 1 of both questions in en" in printed.err
    assert "paraphrases: 0 of 12" in printed.out
    assert json.loads((run / "provenance.json").read_text())["paraphrases"][0].startswith("paraphrases: 0 of 12")
    assert asked(run, 0)
    assert not asked(run, 1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of vLLM and torch
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_what_a_real_model_writes_stands_whole_or_is_refused_with_a_reason(small_model: Path, evaluate: Callable[..., Any]) -> None:
    run, lines = evaluate(f"checkpoints=[{{id: small, path: '{small_model}'}}]", f"augment.paraphraser={small_model}")
    kept = {(line["item_id"], line["side"], line["number"]): line["question"] for line in lines if line["question"] is not None}
    assert len(lines) == 2 * 2 * 3
    assert all(line["reply"] and (line["question"] is None) == bool(line["refused"]) for line in lines)
    originals = {(f"item-{place}", side): item[side] for place, item in enumerate(ITEMS) for side in ("word", "deed")}
    for (item_id, side, _), new in kept.items():
        original = originals[item_id, side]
        assert (new["question"], new["options"]) != (original["question"], original["options"])
        assert len(new["options"]) == 2
        # each option still has more of its own original's words than of the other's
        words = [set(text.lower().split()) for text in (*original["options"], *new["options"])]
        assert len(words[2] & words[0]) >= len(words[2] & words[1])
        assert len(words[3] & words[1]) >= len(words[3] & words[0])
    for number in (1, 2, 3):
        both = {item_id for item_id, _, of in kept if of == number and (item_id, "word", of) in kept and (item_id, "deed", of) in kept}
        assert asked(run, number) == {(item_id, side) for item_id in both for side in ("word", "deed")}
