"""What alignment changed: rates of changed answers, and consistency before and after (scores/change.arrow).

- `direct_change`: of the aligned items, the share whose answer on the target side is now the target option.
- `indirect_change`: of the aligned items whose answer on the other side was not the corresponding option already, the share where it now
  is. (Option i of one side corresponds to option i of the other.)
- The answer of a side is that of scores/items.arrow, over trials the one that most of them give. A tie is not the target option, before
  and after alike. An item without an answer after alignment stays in the denominator and has not changed (`n_no_answer` of `n`); one
  that had none before is left out of it, since what it changed from is not known (`n_no_answer_before`), and so is one that gave the
  target option before (`n_already`): on the target side there is none of either kind in the variant that the preferences are from, but
  other variants have baseline answers of their own.
- `cs`, `cs_debiased`, `pcs`, `pcs_debiased`, each `_before`, `_after` and `_change` (after - before), over the items that have a value both
  times. The p-value stands in the rows of `cs_debiased_change`, and is McNemar's exact test of the decisions (see `paired`), with
  Holm's correction: the tests over all items of a split are a family, those by domain another.
- Trained and held-out items stand apart (`split`); for consistency there is also the split `all`: every item of the run, aligned or not.
- Intervals: bootstrap over items, a change on the same draws before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from wdct_dist.items.types import SIDES, Side
from wdct_dist.metrics.arrow_frame import polars_schema
from wdct_dist.metrics.bootstrap import Bootstrap, Floats, intervals
from wdct_dist.metrics.factors import factors
from wdct_dist.metrics.figures import ratios, rounded
from wdct_dist.metrics.holm import holm
from wdct_dist.metrics.item_answers import item_answers
from wdct_dist.metrics.item_values import METRICS
from wdct_dist.metrics.mcnemar import mcnemar_exact
from wdct_dist.metrics.panel import DIFFERENT, MATCHED, NOT_ASKED, Asking, Panel, Places, domain_sets
from wdct_dist.metrics.summary import ALL
from wdct_dist.tables import schema

NAME = "scores/change.arrow"
SCHEMA = polars_schema(schema.SCORES_CHANGE)

SPLITS = ("train", "held_out")
RATES = ("direct_change", "indirect_change")
TESTED = "cs_debiased_change"
"""The metric that the p-value is about."""

TIE, NO_ANSWER, UNASKED = -1, -2, -3
"""Answers that are no option. `UNASKED`: the item has no row there."""

Codes = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Aligned:
    """A checkpoint that came from aligning, and what it was aligned with."""

    checkpoint_id: str
    baseline_id: str
    branch: str
    method: str
    """The stage that made it: sft or dpo."""
    seed: int
    epoch: int | None
    """None: the end of the stage."""
    preferences: pl.DataFrame
    """Columns of `schema.PREFERENCES`."""
    control: bool = False
    """Trained on no item; `preferences` are those of a branch that was, which it is held against."""

    @property
    def target_side(self) -> Side:
        return "word" if self.preferences["target_side"][0] == "word" else "deed"


def change(scores: pl.LazyFrame, panel: Panel, aligned: Sequence[Aligned], bootstrap: Bootstrap) -> pl.DataFrame:
    """All changes of the checkpoints `aligned`, columns of SCORES_CHANGE, in their order.

    `scores` has the columns of SCORES_ITEMS, `panel` is made from them. Every variant that stands alone and that both the checkpoint and
    its baseline were asked in; members of a family of variants are left out.
    """
    wanted = {name for one in aligned for name in (one.checkpoint_id, one.baseline_id)}
    single = {asking for asking in panel.askings if asking.checkpoint_id in wanted and not factors(asking.variant)}
    answers = _answers(scores, panel, {asking.checkpoint_id for asking in single})
    pairs = [
        (_Plan.of(one, panel), before, asking)
        for one in aligned
        for asking in panel.askings
        if asking in single and asking.checkpoint_id == one.checkpoint_id
        if (before := Asking(one.baseline_id, asking.variant, asking.language)) in single
    ]
    found: list[list[dict[str, Any]]] = [[] for _ in pairs]
    # split by split, since the bootstrap keeps the draws of a dozen sets of items
    for split in (*SPLITS, ALL):
        for rows, (plan, before, after) in zip(found, pairs, strict=True):
            rows += _rows(plan, split, before, after, panel, answers, bootstrap)
    return _corrected(pl.DataFrame([row for rows in found for row in rows], schema=SCHEMA))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one checkpoint was to change, by the items' places in the panel."""

    aligned: Aligned
    targets: Codes
    """Of each item, `UNASKED` where it was not aligned."""
    splits: Mapping[str, Places]

    @classmethod
    def of(cls, aligned: Aligned, panel: Panel) -> _Plan:
        places = pl.DataFrame({"item_id": panel.item_ids}).with_row_index("place")
        used = aligned.preferences.drop_nulls("target_option").join(places, on="item_id").sort("place")
        targets = np.full(len(places), UNASKED, dtype=np.int16)
        targets[used["place"].to_numpy()] = used["target_option"].to_numpy()
        splits = {split: used.filter(split=split)["place"].to_numpy().astype(np.intp) for split in SPLITS}
        return cls(aligned, targets, {**splits, ALL: np.arange(len(places))})


def _answers(scores: pl.LazyFrame, panel: Panel, checkpoints: set[str]) -> dict[tuple[Side, Asking], Codes]:
    """By side and way of asking, the answer to each item of the panel: an option, `TIE`, `NO_ANSWER` or `UNASKED`."""
    place = {item_id: number for number, item_id in enumerate(panel.item_ids.to_list())}
    found: dict[tuple[Side, Asking], Codes] = {}
    chosen = scores.filter(pl.col("checkpoint_id").is_in(list(checkpoints)))
    for side in SIDES:
        said = item_answers(chosen, side).select("checkpoint_id", "variant", "language", "item_id", "option", "tie")
        for checkpoint_id, variant, language, item_id, option, tie in said.iter_rows():
            key = (side, Asking(checkpoint_id, variant, language))
            codes = found.setdefault(key, np.full(len(place), UNASKED, dtype=np.int16))
            codes[place[item_id]] = option if option is not None else TIE if tie else NO_ANSWER
    return found


def _rows(
    plan: _Plan,
    split: str,
    before: Asking,
    after: Asking,
    panel: Panel,
    answers: Mapping[tuple[Side, Asking], Codes],
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """The rows of one checkpoint in one variant and language, of one split."""
    one, items = plan.aligned, plan.splits[split]
    named = {
        "checkpoint_id": one.checkpoint_id,
        "baseline_id": one.baseline_id,
        "branch": one.branch,
        "target_side": one.target_side,
        "method": one.method,
        "seed": one.seed,
        "epoch": one.epoch,
        "control": one.control,
        "variant": after.variant,
        "language": after.language,
        "level": bootstrap.level,
        "split": split,
    }
    pair = np.array([panel.askings.index(before), panel.askings.index(after)])
    asked = items[(panel.decisions[np.ix_(pair, items)] != NOT_ASKED).any(axis=0)]
    if not len(asked):
        return
    for domain, places in domain_sets(panel.domains[asked]):
        at = asked[places]
        rows = [] if split == ALL else list(_rates(one.target_side, before, after, plan.targets[at], at, answers))
        rows += _consistency(panel, pair, at)
        values = _values([row.above for row in rows], [row.below for row in rows], bootstrap, domain)
        for row, value in zip(rows, values, strict=True):
            yield {**named, "domain": domain, "metric": row.metric, "n": int(row.below.sum()), **value, **row.more}


@dataclass(frozen=True, slots=True)
class _Row:
    """A figure as a ratio over items, and what else its row says."""

    metric: str
    above: NDArray[Any]
    below: NDArray[np.bool_]
    more: Mapping[str, Any]


def _rates(
    target_side: Side, before: Asking, after: Asking, targets: Codes, at: Places, answers: Mapping[tuple[Side, Asking], Codes]
) -> Iterator[_Row]:
    """Direct and indirect change of the items at `at`, which are to change to `targets`."""
    other: Side = "deed" if target_side == "word" else "word"
    for metric, side in zip(RATES, (target_side, other), strict=True):
        first, now = answers[side, before][at], answers[side, after][at]
        asked = (first != UNASKED) & (now != UNASKED)
        already, unknown = asked & (first == targets), asked & (first == NO_ANSWER)
        counted = asked & ~already & ~unknown
        changed = counted & (now == targets)
        more = {
            "n_changed": int(changed.sum()),
            "n_tied": int((counted & (now == TIE)).sum()),
            "n_no_answer": int((counted & (now == NO_ANSWER)).sum()),
            "n_already": int(already.sum()),
            "n_no_answer_before": int(unknown.sum()),
        }
        yield _Row(metric, changed, counted, more)


def _consistency(panel: Panel, pair: Places, at: Places) -> Iterator[_Row]:
    """Consistency before and after, and the change, of the items at `at`; `pair`: the rows of the panel before and after."""
    for number, metric in enumerate(METRICS):
        before, after = panel.values[pair[0], number, at], panel.values[pair[1], number, at]
        shared = ~np.isnan(before) & ~np.isnan(after)
        for moment, values in (("before", before), ("after", after), ("change", after - before)):
            name = f"{metric}_{moment}"
            more = {"p_value": _p_value(panel.decisions[np.ix_(pair, at)])} if name == TESTED else {}
            yield _Row(name, np.where(shared, values, 0.0), shared, more)


def _values(
    above: Sequence[NDArray[Any]], below: Sequence[NDArray[np.bool_]], bootstrap: Bootstrap, item_set: str
) -> list[dict[str, float | None]]:
    """Value and interval of each ratio, all on the same draws."""
    numerators: Floats = np.stack(above).astype(np.float64)
    denominators: Floats = np.stack(below).astype(np.float64)
    ends = intervals(numerators, denominators, bootstrap, item_set)
    return [
        {"value": rounded(float(value)), "ci_low": rounded(float(low)), "ci_high": rounded(float(high))}
        for value, (low, high) in zip(ratios(numerators, denominators), ends, strict=True)
    ]


def _p_value(decisions: NDArray[np.int8]) -> float | None:
    """Of decisions [before and after, items]; None where no item is decided both times."""
    before, after = decisions
    decided = (before >= DIFFERENT) & (after >= DIFFERENT)
    if not decided.any():
        return None
    matched = decided & (before != after)
    return mcnemar_exact(int((matched & (before == MATCHED)).sum()), int((matched & (after == MATCHED)).sum()))


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Fills `p_holm` and `family_size`: each test once, though a control, held against several sides, shows that of all items with each."""
    side = pl.when(pl.col("split") != ALL).then("target_side")
    table = table.with_row_index("row").with_columns(over_all=pl.col("domain") == ALL, of_side=side)
    test = ["checkpoint_id", "baseline_id", "variant", "language", "split", "domain", "metric", "of_side"]
    tests = table.filter(pl.col("p_value").is_not_null()).unique(test, keep="first", maintain_order=True)
    parts = [
        part.select(*test, p_holm=pl.Series(holm(part["p_value"].to_list()), dtype=pl.Float64), family_size=pl.lit(part.height, pl.Int64))
        for _, part in tests.group_by("split", "over_all", maintain_order=True)
    ]
    if not parts:
        return table.select(SCHEMA.names())
    corrected = table.drop("p_holm", "family_size").join(pl.concat(parts), on=test, how="left", nulls_equal=True)
    return corrected.sort("row").select(SCHEMA.names())
