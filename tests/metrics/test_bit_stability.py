"""Whether trials are the same bit for bit, worked by hand on ten answers."""

from __future__ import annotations

import math
from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bit_stability import bit_stability, bit_stable_rows
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.tables import schema


def answer(prompt: str, trial: int, logprobs: list[float] | None, error: str | None = None) -> dict[str, Any]:
    return {"checkpoint_id": "a", "prompt_id": prompt, "trial": trial, "option_logprobs": logprobs, "error": error}


def frame(rows: list[dict[str, Any]], table_schema: Any = schema.ANSWERS) -> pl.LazyFrame:
    return pl.DataFrame(rows, schema=polars_schema(table_schema)).lazy()


TEN = [
    answer("same", 0, [-0.7, -0.7]),
    answer("same", 1, [-0.7, -0.7]),
    answer("last bit", 0, [-0.7, -0.7]),
    answer("last bit", 1, [-0.7, math.nextafter(-0.7, 0)]),
    answer("not a number once", 0, [-0.3, -1.4]),
    answer("not a number once", 1, [math.nan, -1.4]),
    answer("one error", 0, [-0.1, -2.4]),
    answer("one error", 1, None, "too long"),
    answer("three options", 0, [-1.0, -1.1, -1.2]),
    answer("three options", 1, [-1.0, -1.1, -1.2]),
]


def test_ten_answers_worked_by_hand() -> None:
    found = dict(bit_stability(frame(TEN)).collect().iter_rows())
    assert found == {"same": True, "last bit": False, "not a number once": False, "three options": True}


def test_the_third_trial_counts_too() -> None:
    rows = [answer("p", trial, [-0.5, -0.9]) for trial in range(3)]
    assert dict(bit_stability(frame(rows)).collect().iter_rows()) == {"p": True}
    rows[2] = answer("p", 2, [-0.5, -0.9000001])
    assert dict(bit_stability(frame(rows)).collect().iter_rows()) == {"p": False}


def test_the_share_is_one_of_prompts_with_an_interval_over_items() -> None:
    asked = [("same", "i0"), ("last bit", "i0"), ("not a number once", "i1"), ("one error", "i1"), ("three options", "i2")]
    prompts = [
        {"prompt_id": prompt, "item_id": item, "variant": "direct", "language": "en", "domain": "EthV" if item == "i2" else "Opinion"}
        for prompt, item in asked
    ]
    items = [{"item_id": item} for item in ("i0", "i1", "i2")]
    found = bit_stable_rows("a", frame(TEN), frame(prompts, schema.PROMPTS), frame(items, schema.ITEMS), Bootstrap(200))
    assert found.columns == schema.SCORES_SUMMARY.names
    by_domain = {domain: (value, n) for domain, value, n in found.select("domain", "value", "n").iter_rows()}
    assert by_domain == {"all": (pytest.approx(0.5), 3), "Opinion": (pytest.approx(1 / 3), 2), "EthV": (1.0, 1)}
    assert found["metric"].unique().to_list() == ["bit_stable"]


def test_one_trial_says_nothing() -> None:
    once = frame([entry for entry in TEN if entry["trial"] == 0])
    assert bit_stable_rows("a", once, frame([], schema.PROMPTS), frame([], schema.ITEMS), Bootstrap(10)).height == 0
