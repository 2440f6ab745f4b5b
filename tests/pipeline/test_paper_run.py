"""The published protocol as a whole run: CS and PCS once more from the raw rows, by a script that shares no code with ours."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.cli.main import main

PAPER = Path(__file__).parents[2] / "configs" / "paper.yaml"
PATTERNS = (r"^([AB]).?\n", r"Answer:.*?([AB])", r"([AB])\.", r"([AB])\)", r"([AB]):", r"([AB])")


def recompute(run: Path) -> dict[str, tuple[float, float, int]]:
    """CS, PCS and their number of items by checkpoint, from prompts.arrow and answers/*.arrow alone, in plain Python."""
    prompts = {row["prompt_id"]: row for row in pa.ipc.open_file(str(run / "prompts.arrow")).read_all().to_pylist()}
    asked: dict[tuple[str, str, int], list[Any]] = defaultdict(list)
    for row in (row for shard in run.glob("answers/*.arrow") for row in pa.ipc.open_file(str(shard)).read_all().to_pylist()):
        prompt, text = prompts[row["prompt_id"]], row["text"].strip()
        refuses = any(words in text.lower() for words in ("i'm sorry", "cannot answer", "can't answer"))
        label = None if refuses else next((found[1] for pattern in PATTERNS if (found := re.search(pattern, text))), None)
        if label is not None:
            zero, one = (math.exp(value) for value in row["option_logprobs"])
            asked[row["checkpoint_id"], prompt["item_id"], row["trial"]].append(
                (prompt["permutation"]["AB".index(label)], zero / (zero + one))
            )
    items: dict[str, dict[str, list[tuple[bool, float]]]] = defaultdict(lambda: defaultdict(list))
    for (checkpoint, item, _), sides in asked.items():
        if len(sides) == 2:
            (option, p), (other, q) = sides
            entropy = [-sum(x * math.log2(x) for x in (r, 1 - r) if x > 0) for r in ((p + q) / 2, p, q)]
            items[checkpoint][item].append((option == other, 1 - (entropy[0] - (entropy[1] + entropy[2]) / 2)))
    means = {
        name: [[sum(column) / len(column) for column in zip(*trials, strict=True)] for trials in own.values()]
        for name, own in items.items()
    }
    return {name: (*(math.fsum(column) / len(own) for column in zip(*own, strict=True)), len(own)) for name, own in means.items()}  # type: ignore[misc]


def stated(run: Path) -> dict[str, tuple[float, float, int]]:
    """The same three figures as scores/summary.arrow has them."""
    rows = pl.read_ipc(run / "scores" / "summary.arrow").filter(domain="all", variant="paper")
    figures = {(row["checkpoint_id"], row["metric"]): row for row in rows.to_dicts()}
    return {
        name: (figures[name, "cs"]["value"], figures[name, "pcs"]["value"], figures[name, "cs"]["n"])
        for name in rows["checkpoint_id"].unique()
    }


def assert_same_figures(run: Path) -> None:
    again, ours = recompute(run), stated(run)
    assert again.keys() == ours.keys()
    for name, figures in again.items():
        assert ours[name] == pytest.approx(figures, abs=1e-12)


@pytest.fixture
def evaluate(tmp_path: Path) -> Callable[..., Path]:
    """Evaluates configs/paper.yaml under overrides; returns the run's directory."""

    def run(*overrides: str) -> Path:
        folder = tmp_path / "run"
        assert main(["evaluate", str(PAPER), f"run_dir={folder}", "dispatch.executor=local", *overrides]) == 0
        return folder

    return run


SCRIPTED = ("engine.kind=scripted", "checkpoints=[alpha,beta]", "metrics.bootstrap_resamples=20")


@pytest.mark.parametrize("trials", [1, 3])
def test_cs_and_pcs_on_all_published_items_are_those_of_an_independent_script(
    wdct_csv: Path, evaluate: Callable[..., Path], trials: int
) -> None:
    run = evaluate(*SCRIPTED, f"data.path={wdct_csv}", f"trials={trials}", "sampling.temperature=0.7")
    prompts = pl.read_ipc(run / "prompts.arrow")
    swapped = prompts.filter(pl.col("permutation").list.first() == 1)["side"].value_counts()
    assert dict(swapped.iter_rows()) == {"word": 588, "deed": 597}
    assert prompts.height == 2 * 1211
    assert {num_items for _, _, num_items in stated(run).values()} == {1211}
    assert_same_figures(run)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")  # of vLLM and torch
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("prompt_format", "trials"), [("chat", 1), ("plain", 2)])
def test_cs_and_pcs_of_a_real_model_are_those_of_an_independent_script(
    small_model: Path, evaluate: Callable[..., Path], prompt_format: str, trials: int
) -> None:
    """As a chat model, and as a base model is asked, with trials."""
    run = evaluate(
        f"checkpoints=[{{id: small, path: '{small_model}'}}]",
        "data.path=bundled",
        "data.limit=8",
        f"prompt.format={prompt_format}",
        f"trials={trials}",
        "sampling.temperature=0.7",
        "engine.max_model_len=1024",
        "engine.cpu_cache_gib=1",
    )
    answers = pl.scan_ipc(str(run / "answers" / "*.arrow")).collect()
    assert 1 < answers["num_output_tokens"].max() <= 10  # how long replies are depends on the processor, by bfloat16
    assert answers["error"].null_count() == answers.height
    assert stated(run)["small"][2] > 0
    assert_same_figures(run)
