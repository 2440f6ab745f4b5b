"""The summary's figures as the page's charts read them: one list of records, embedded once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

from wdct_dist.report.headline import domains_of
from wdct_dist.report.rows import ALL, Row
from wdct_dist.report.training import steps

METRICS = ("cs", "pcs")
MOST_CHARACTERS = 30
"""Of a name beside a chart."""


def figures(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A record for each row, domain (`all` first) and metric that has a value; `step` and `series` where the name tells them."""
    names = short_names([row.checkpoint_id for row in rows])
    training = steps(row.checkpoint_id for row in rows)
    found: list[dict[str, Any]] = []
    for row in rows:
        step = training.get(row.checkpoint_id)
        place = {} if step is None else {"series": step.series, "step": step.step}
        for domain in (ALL, *domains_of(rows)):
            for metric in METRICS:
                figure = row.figure(metric, domain)
                if figure.value is None:
                    continue
                found.append(
                    {
                        "checkpoint": row.checkpoint_id,
                        "name": names[row.checkpoint_id],
                        "asked": asked(row, rows),
                        "domain": domain,
                        "metric": metric,
                        "value": figure.value,
                        "low": figure.low,
                        "high": figure.high,
                        "items": figure.num_items,
                        "chance": row.figure("cs_chance", domain).value if metric == "cs" else None,
                        **place,
                    }
                )
    return found


def asked(row: Row, rows: Sequence[Row]) -> str:
    """How a row's prompts were asked: its variant, and its language where `rows` differ in it."""
    return f"{row.variant}, {row.language}" if len({one.language for one in rows}) > 1 else row.variant


def short_names(checkpoint_ids: Sequence[str]) -> dict[str, str]:
    """Names that fit beside a chart, all different: without what all begin with, and without the middle of what is still long."""
    different = list(dict.fromkeys(checkpoint_ids))
    # what the first and the last in the order of the alphabet begin with, all begin with
    pairs = zip(min(different), max(different), strict=False)
    common = "".join(one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
    begun = max(common.rfind(sign) for sign in "/@-_") + 1 if len(different) > 1 else 0
    short = {name: _without_middle(name[begun:]) for name in different}
    return short if len(set(short.values())) == len(short) else {name: name for name in different}


def _without_middle(name: str) -> str:
    kept = (MOST_CHARACTERS - 1) // 2
    return name if len(name) <= MOST_CHARACTERS else f"{name[:kept]}…{name[-kept:]}"
