"""How much of the reasoning was cut, worked by hand on ten answers."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.reasoning import reasoning_cut_rows
from wdct_dist.tables import schema

# item, side, mode, trials' finish reasons; None: an error
TEN: list[tuple[str, str, str, list[str | None]]] = [
    ("a", "word", "reason", ["length", "stop"]),
    ("a", "deed", "reason", ["stop", "stop"]),
    ("b", "word", "reason", ["length", "length"]),
    ("b", "deed", "reason", ["length", None]),
    # asked directly: one token, which always ends at its limit
    ("c", "word", "score", ["length", "length"]),
]


def rows(asked: list[tuple[str, str, str, list[str | None]]]) -> pl.DataFrame:
    prompts: list[dict[str, Any]] = []
    answers: list[dict[str, Any]] = []
    for item_id, side, mode, reasons in asked:
        name = f"{item_id}-{side}"
        prompts.append({"prompt_id": name, "item_id": item_id, "variant": "cot", "language": "en", "domain": "Opinion", "mode": mode})
        answers += [
            {"prompt_id": name, "trial": trial, "finish_reason": reason, "error": None if reason else "too long"}
            for trial, reason in enumerate(reasons)
        ]
    items = [{"item_id": item_id, "domain": "Opinion"} for item_id in dict.fromkeys(one[0] for one in asked)]
    tables = (
        pl.DataFrame(found, schema=polars_schema(of)).lazy()
        for found, of in ((answers, schema.ANSWERS), (prompts, schema.PROMPTS), (items, schema.ITEMS))
    )
    return reasoning_cut_rows("m", *tables, Bootstrap(100))


def test_the_share_is_of_the_reasonings_that_ended_or_were_cut() -> None:
    found = rows(TEN).filter(domain="all").to_dicts()
    assert [(one["checkpoint_id"], one["variant"], one["metric"], one["n"]) for one in found] == [("m", "cot", "reasoning_cut", 2)]
    assert found[0]["value"] == pytest.approx(4 / 7)
    assert found[0]["ci_low"] <= 4 / 7 <= found[0]["ci_high"]


def test_a_run_without_reasoning_has_no_such_figure() -> None:
    assert rows(TEN[-1:]).is_empty()
