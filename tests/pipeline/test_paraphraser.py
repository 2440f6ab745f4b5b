"""Paraphrases that a model writes before the evaluation, from the first prompt to the report: with the scripted engine and a real model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.cli.main import main
from wdct_dist.items.load import BUNDLED

CONFIG = """
run_dir: {run}
data: {{path: {data}}}
variants: [augmented]
augment: {{label_sets: [letters], wordings: [0], paraphrases: [0, 1, 2]}}
dispatch: {{executor: local}}
metrics: {{bootstrap_resamples: 20}}
sampling: {{max_new_tokens: 100}}
engine: {{dtype: float32, max_model_len: 1024, cpu_cache_gib: 1}}
"""

CHOSEN = ("opinion-11", "opinion-12", "opinion-13")
"""Bundled items whose word questions the small model can paraphrase, each in one of two styles."""


def items() -> list[dict[str, Any]]:
    """The chosen items, without paraphrases of their own; their word questions stand for the deeds too, which are long."""
    rows = {row["item_id"]: row for row in map(json.loads, BUNDLED.read_text(encoding="utf-8").splitlines())}
    words = {item_id: {part: rows[item_id]["word"][part] for part in ("question", "options")} for item_id in CHOSEN}
    return [{"item_id": item_id, "domain": "Opinion", "word": word, "deed": word} for item_id, word in words.items()]


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., tuple[Path, list[dict[str, Any]]]]:
    """Evaluates `items` under overrides; returns the run's directory and the lines of its paraphrases.jsonl."""

    def run(*overrides: str) -> tuple[Path, list[dict[str, Any]]]:
        data, config, folder = tmp_path / "items.jsonl", tmp_path / "c.yaml", tmp_path / "run"
        data.write_text("".join(json.dumps(item) + "\n" for item in items()))
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
    assert len(lines) == 3 * 2 * 2
    assert all(line["question"] is None and line["refused"] and line["reply"] for line in lines)
    printed = capsys.readouterr()
    assert "paraphrases: 0 of 12 that the paraphraser wrote are kept" in printed.err
    assert "paraphrase=1/system=none: 3 items left out: no paraphrase 1 of both questions in en" in printed.err
    assert "paraphrases: 0 of 12" in printed.out
    assert json.loads((run / "provenance.json").read_text())["paraphrases"][0].startswith("paraphrases: 0 of 12")
    assert asked(run, 0)
    assert not asked(run, 1)


@pytest.mark.slow
# vLLM and torch warn of their own APIs, and leave a socket open, in the process that they run in
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_real_model_writes_some_that_stand_and_many_that_do_not(small_model: Path, evaluate: Callable[..., Any]) -> None:
    run, lines = evaluate(f"checkpoints=[{{id: small, path: '{small_model}'}}]", f"augment.paraphraser={small_model}")
    kept = {(line["item_id"], line["side"], line["number"]): line["question"] for line in lines if line["question"] is not None}
    assert len(lines) == 3 * 2 * 2
    assert 0 < len(kept) < len(lines)
    originals = {item["item_id"]: item["word"] for item in items()}
    for (item_id, _, _), new in kept.items():
        original = originals[item_id]
        assert new != original
        words = [[set(text.lower().split()) for text in question["options"]] for question in (original, new)]
        # each option has more of its own original's words than of any other's
        for option, said in enumerate(words[1]):
            shared = [len(said & own) for own in words[0]]
            assert max(shared) == shared[option] > 0
    assert any(asked(run, number) for number in (1, 2))
    for number in (1, 2):
        both = {item_id for item_id, _, of in kept if of == number and (item_id, "word", of) in kept and (item_id, "deed", of) in kept}
        assert asked(run, number) == {(item_id, side) for item_id in both for side in ("word", "deed")}
