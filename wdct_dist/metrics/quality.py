"""Whether the answers can be trusted, and whether they are right.

Rates of prompts (`label_mass`, `tie_rate`, `parse_rate`, `refusal_rate`) pool both sides, all orders and trials; every prompt
weighs the same. `parse_rate`: of all planned prompts, those with an answer that can be read, in the reply where text was generated,
else in the probabilities. `refusal_rate`: of the replies, those that decline; undefined where no text was generated. `tie_rate`
counts prompts whose own option probabilities tie, not items that tie after averaging over orders.

Beyond the contract, for each side: `position_word` and `position_deed` say how far answers follow a place instead of an option.
Where an item's answered orders are balanced (each option stands first equally often), it is the share of its answers at the
label that has most of them: 1 where every order is answered by the same label, 1/k where every order is answered by the same
option, 0.75 for random answers to two options. `position_first_*` and `position_last_*` are the shares at the first and at the
last label, never above it; their chance is 1/k. `suspicious_rate` is the share of items that `wdct check` found suspicious.
"""

from __future__ import annotations

import polars as pl

from wdct_dist.metrics.ratio import Ratio, both_sides, mean_of_items, pooled


def correct(items: pl.LazyFrame, num_options: int) -> pl.LazyFrame:
    """Adds, for each side, `expected_*_correct` (0 to 1) and `*_correct` (bool): the debiased answer against `correct_option`.

    Null where the item has no correct option or the side no answer. Where the correct option is tied with others, the bool is
    null and the expected value its share of the answer.
    """

    def share(side: str) -> pl.Expr:
        # At most one of them is not null.
        return pl.coalesce(pl.when(pl.col("correct_option") == option).then(f"{side}_d{option}") for option in range(num_options))

    columns: dict[str, pl.Expr] = {}
    for side in ("word", "deed"):
        expected = share(side)
        columns[f"expected_{side}_correct"] = expected
        columns[f"{side}_correct"] = pl.when(expected == 1).then(pl.lit(True)).when(expected == 0).then(pl.lit(False))
    return items.with_columns(**columns)


def _total_mass() -> pl.Expr:
    return pl.sum_horizontal(pl.col(f"{side}_label_mass") * pl.col(f"{side}_num_masses") for side in ("word", "deed"))


METRICS: dict[str, Ratio] = {
    "accuracy_word": mean_of_items(pl.col("expected_word_correct")),
    "accuracy_deed": mean_of_items(pl.col("expected_deed_correct")),
    "parse_rate": pooled(both_sides("num_read"), both_sides("num_prompts")),
    "refusal_rate": pooled(both_sides("num_refused"), both_sides("num_refusable")),
    "label_mass": pooled(_total_mass(), both_sides("num_masses")),
    "tie_rate": pooled(both_sides("num_ties"), both_sides("num_answers")),
    "suspicious_rate": mean_of_items(pl.col("suspicious")),
    "position_word": mean_of_items(pl.col("word_position")),
    "position_deed": mean_of_items(pl.col("deed_position")),
    "position_first_word": mean_of_items(pl.col("word_position_first")),
    "position_first_deed": mean_of_items(pl.col("deed_position_first")),
    "position_last_word": mean_of_items(pl.col("word_position_last")),
    "position_last_deed": mean_of_items(pl.col("deed_position_last")),
}
