"""Change rates of a made-up run, held against what plain Python counts in it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.change import Aligned, change
from wdct_dist.metrics.mcnemar import mcnemar_exact
from wdct_dist.metrics.paired import differences
from wdct_dist.metrics.panel import build_panel
from wdct_dist.tables import schema

BOOTSTRAP = Bootstrap(200, 1, 0.9)
DOMAINS = ("Opinion", "NonEthV")
Answer = int | str | None
"""An option, "tie" or None: no answer."""


def item_row(checkpoint_id: str, item: int, word: Answer, deed: Answer, variant: str = "direct") -> dict[str, Any]:
    """A row of scores/items.arrow. Answers have a probability of 0.8, ties of 0.5."""
    row: dict[str, Any] = {
        "checkpoint_id": checkpoint_id,
        "variant": variant,
        "language": "en",
        "trial": 0,
        "item_id": f"i{item}",
        "domain": DOMAINS[item % 2],
        "num_options": 2,
    }
    sides: tuple[tuple[str, Answer], ...] = (("word", word), ("deed", deed))
    for side, answer in sides:
        row[f"{side}_option"] = answer if isinstance(answer, int) else None
        row[f"{side}_tie"] = None if answer is None else answer == "tie"
        row[f"parse_status_{side}"] = "error" if answer is None else "ok"
        row[f"{side}_probs"] = (
            None if answer is None else [0.5, 0.5] if answer == "tie" else [0.8 - 0.6 * int(answer), 0.2 + 0.6 * int(answer)]
        )
    if word is not None and deed is not None:
        row["match"] = 0.5 if "tie" in (word, deed) else float(word == deed)
        row["pcs"] = row["pcs_debiased"] = 1.0 if word == deed else 0.7
    return row


def preference_rows(answers: Sequence[Answer], others: Sequence[Answer], side: str, held_out: set[int]) -> pl.DataFrame:
    rows = [
        {
            "baseline_id": "base",
            "target_side": side,
            "item_id": f"i{item}",
            "domain": DOMAINS[item % 2],
            "split": None if not isinstance(answer, int) else "held_out" if item in held_out else "train",
            "baseline_option": answer if isinstance(answer, int) else None,
            "target_option": 1 - answer if isinstance(answer, int) else None,
            "other_side_baseline_option": other if isinstance(other, int) else None,
            "left_out": None if isinstance(answer, int) else "no answer",
        }
        for item, (answer, other) in enumerate(zip(answers, others, strict=True))
    ]
    return pl.DataFrame(pa.Table.from_pylist(rows, schema=schema.PREFERENCES))


def items_of(number: int) -> pl.LazyFrame:
    return pl.LazyFrame({"item_id": [f"i{item}" for item in range(number)], "domain": [DOMAINS[item % 2] for item in range(number)]})


def aligned_as(checkpoint_id: str, preferences: pl.DataFrame) -> Aligned:
    return Aligned(checkpoint_id, "base", "base-word-seed7", "dpo", 7, 2, preferences)


def found_in(rows: Sequence[dict[str, Any]], number: int, *aligned: Aligned) -> pl.DataFrame:
    scores = pl.DataFrame(pa.Table.from_pylist(list(rows), schema=schema.SCORES_ITEMS)).lazy()
    return change(scores, build_panel(scores, items_of(number)), aligned, BOOTSTRAP)


def row_of(table: pl.DataFrame, metric: str, split: str = "train", domain: str = "all", **more: Any) -> dict[str, Any]:
    [row] = table.filter(metric=metric, split=split, domain=domain, **more).to_dicts()
    return row


COUNTS = ("value", "n", "n_changed", "n_tied", "n_no_answer", "n_already", "n_no_answer_before")


def counts(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in COUNTS)


def test_eight_items_worked_by_hand() -> None:
    # words are aligned: 0 is to become 1. Deeds before: 0 0 0 1 tie None 0 0; after: 1 0 tie 1 1 1 None 1
    word_before: list[Answer] = [0] * 8
    deed_before: list[Answer] = [0, 0, 0, 1, "tie", None, 0, 0]
    word_after: list[Answer] = [1, 1, 1, 0, "tie", None, 1, 1]
    deed_after: list[Answer] = [1, 0, "tie", 1, 1, 1, None, 1]
    rows = [item_row("base", item, word_before[item], deed_before[item]) for item in range(8)]
    rows += [item_row("new", item, word_after[item], deed_after[item]) for item in range(8)]
    table = found_in(rows, 8, aligned_as("new", preference_rows(word_before, deed_before, "word", set())))
    assert counts(row_of(table, "direct_change")) == (5 / 8, 8, 5, 1, 1, 0, 0)
    # i3 did the target before, i5 had no answer before; of the other six i0, i4 and i7 changed
    assert counts(row_of(table, "indirect_change")) == (0.5, 6, 3, 1, 1, 1, 1)
    named = ["checkpoint_id", "baseline_id", "branch", "target_side", "method", "seed", "epoch", "variant", "language", "level"]
    assert table.select(named).unique().rows() == [("new", "base", "base-word-seed7", "word", "dpo", 7, 2, "direct", "en", 0.9)]
    assert table.filter(split="held_out").is_empty()


def random_run(seed: int, number: int) -> tuple[list[list[Answer]], list[dict[str, Any]]]:
    """Answers [word before, deed before, word after, deed after][item], and the rows of both checkpoints."""
    draw = random.Random(seed)
    said = [[draw.choices([0, 1, "tie", None], [5, 4, 1, 1])[0] for _ in range(number)] for _ in range(4)]
    rows = [item_row("base", item, said[0][item], said[1][item]) for item in range(number)]
    return said, rows + [item_row("new", item, said[2][item], said[3][item]) for item in range(number)]


@pytest.mark.parametrize("side", ["word", "deed"])
def test_rates_and_consistency_are_what_plain_python_counts(side: str) -> None:
    number, held_out = 60, set(range(0, 60, 5))
    said, rows = random_run(3, number)
    target, other = (0, 1) if side == "word" else (1, 0)
    table = found_in(rows, number, aligned_as("new", preference_rows(said[target], said[other], side, held_out)))
    for split, domain in itertools.product(("train", "held_out"), ("all", *DOMAINS)):
        aligned = [
            item
            for item in range(number)
            if isinstance(said[target][item], int) and (item in held_out) == (split == "held_out") and domain in ("all", DOMAINS[item % 2])
        ]
        wanted = {item: 1 - int(said[target][item] or 0) for item in aligned}
        direct = [said[2 + target][item] == wanted[item] for item in aligned]
        eligible = [item for item in aligned if said[other][item] not in (None, wanted[item])]
        indirect = [said[2 + other][item] == wanted[item] for item in eligible]
        for metric, changed in (("direct_change", direct), ("indirect_change", indirect)):
            row = row_of(table, metric, split, domain)
            assert (row["n"], row["n_changed"]) == (len(changed), sum(changed))
            assert row["value"] == pytest.approx(mean(changed))
            if len(changed) > 1:
                assert row["ci_low"] <= row["value"] <= row["ci_high"]
        both = [item for item in aligned if all(one[item] is not None for one in said)]
        cs = [[match(said[moment][item], said[moment + 1][item]) for item in both] for moment in (0, 2)]
        before, after, moved = (row_of(table, f"cs_{moment}", split, domain) for moment in ("before", "after", "change"))
        assert (before["value"], after["value"]) == (pytest.approx(mean(cs[0])), pytest.approx(mean(cs[1])))
        assert moved["value"] == pytest.approx(mean(cs[1]) - mean(cs[0]))
        assert moved["n"] == len(both)
        decided = [(one, two) for one, two in zip(*cs, strict=True) if 0.5 not in (one, two)]
        p_value = mcnemar_exact(sum(one > two for one, two in decided), sum(one < two for one, two in decided))
        assert row_of(table, "cs_debiased_change", split, domain)["p_value"] == pytest.approx(p_value)


def match(word: Answer, deed: Answer) -> float:
    return 0.5 if "tie" in (word, deed) else float(word == deed)


def test_changes_of_consistency_are_the_paired_differences_of_the_run() -> None:
    said, rows = random_run(4, 40)
    table = found_in(rows, 40, aligned_as("new", preference_rows(said[0], said[1], "word", set())))
    scores = pl.DataFrame(pa.Table.from_pylist(rows, schema=schema.SCORES_ITEMS)).lazy()
    paired = differences(build_panel(scores, items_of(40)), BOOTSTRAP)
    for metric in ("cs", "cs_debiased", "pcs"):
        [row] = paired.filter(metric=metric, domain="all", kind="checkpoint").to_dicts()
        mine = row_of(table, f"{metric}_change", "all")
        assert row["left"] == "base", "so that signs are the other way round"
        assert (mine["value"], mine["n"]) == (pytest.approx(-row["difference"]), row["n"])
        assert (mine["ci_low"], mine["ci_high"]) == (pytest.approx(-row["ci_high"]), pytest.approx(-row["ci_low"]))
    assert row_of(table, "cs_debiased_change", "all")["p_value"] == pytest.approx(
        paired.filter(metric="cs_debiased", domain="all")["p_value"].item()
    )


def test_p_values_are_corrected_over_all_checkpoints_of_a_split() -> None:
    said, rows = random_run(5, 60)
    preferences = preference_rows(said[0], said[1], "word", set())
    rows += [row | {"checkpoint_id": "twin"} for row in rows if row["checkpoint_id"] == "new"]
    table = found_in(rows, 60, aligned_as("new", preferences), aligned_as("twin", preferences))
    tests = table.filter(pl.col("p_value").is_not_null())
    assert tests["metric"].unique().to_list() == ["cs_debiased_change"]
    over_all = tests.filter(split="train", domain="all")
    assert over_all["family_size"].to_list() == [2, 2]
    assert over_all["p_holm"].to_list() == pytest.approx([min(1.0, 2 * p) for p in over_all["p_value"]])
    assert tests.filter(pl.col("domain") != "all", split="train")["family_size"].to_list() == [4] * 4


def test_a_control_that_is_held_against_both_sides_is_one_test_of_all_items() -> None:
    said, rows = random_run(5, 60)
    sides = [preference_rows(said[0], said[1], side, set()) for side in ("word", "deed")]
    table = found_in(rows, 60, *(replace(aligned_as("new", preferences), control=True) for preferences in sides))
    tests = table.filter(pl.col("p_value").is_not_null(), domain="all")
    everything = tests.filter(split="all")
    assert everything["target_side"].to_list() == ["word", "deed"]
    assert everything["family_size"].to_list() == [1, 1]
    assert everything["p_holm"].to_list() == everything["p_value"].to_list()
    # trained items are those of a side
    assert tests.filter(split="train")["family_size"].to_list() == [2, 2]


def test_another_variant_is_held_against_its_own_baseline() -> None:
    rows = [item_row("base", item, 0, 0) for item in range(4)] + [item_row("new", item, 1, 0) for item in range(4)]
    rows += [item_row("base", item, item % 2, 0, "cot") for item in range(4)] + [item_row("new", item, 1, 1, "cot") for item in range(4)]
    rows += [item_row("new", item, 1, 1, "joint") for item in range(4)]
    table = found_in(rows, 4, aligned_as("new", preference_rows([0] * 4, [0] * 4, "word", set())))
    assert counts(row_of(table, "direct_change", variant="direct")) == (1, 4, 4, 0, 0, 0, 0)
    assert counts(row_of(table, "direct_change", variant="cot")) == (1, 2, 2, 0, 0, 2, 0)
    assert counts(row_of(table, "indirect_change", variant="cot"))[0] == 1
    assert set(table["variant"]) == {"direct", "cot"}, "joint has no baseline"


def test_a_rate_over_no_item_is_null() -> None:
    rows = [item_row("base", item, 0, 1) for item in range(4)] + [item_row("new", item, 1, 1) for item in range(4)]
    table = found_in(rows, 4, aligned_as("new", preference_rows([0] * 4, [1] * 4, "word", set())))
    row = row_of(table, "indirect_change")
    assert counts(row) == (None, 0, 0, 0, 0, 4, 0)
    assert (row["ci_low"], row["ci_high"]) == (None, None)
    assert not any(math.isnan(value) for value in table["value"].drop_nulls())
