"""What might have moved the figures, in tables and a sentence."""

from __future__ import annotations

from typing import Any

import polars as pl

from wdct_dist.report.rows import Row, rows_of
from wdct_dist.report.steadiness import repetition


def rows(summary: Any, *checkpoints: Any) -> list[Row]:
    return rows_of(summary(*checkpoints))


def test_only_figures_that_the_run_has_are_columns(summary: Any, printed: Any, flat: Any) -> None:
    assert "How steady" not in printed(summary(("base", {})))
    text = printed(summary(("base", {"stable_word": 0.25, "stable_deed": 0.5, "noise": 0.012}), ("other", {})))
    assert "base 0.250 0.500 0.012" in flat(text)
    assert "other - - -" in flat(text)
    assert "noise: what a figure moves in A/A repeats" in flat(text)
    assert "trials agree" not in text


def test_bounds_stand_where_items_have_no_answer(summary: Any, printed: Any, flat: Any) -> None:
    text = printed(summary(("base", {"cs_lower": 0.6, "cs_upper": 0.72}), ("whole", {})))
    assert "base 0.600 to 0.720" in flat(text)
    assert "bounds: items without an answer counted as differing, as matching" in flat(text)


def test_reasonings_that_were_cut_and_replies_that_disagree_are_told(summary: Any, printed: Any, flat: Any) -> None:
    text = flat(printed(summary(("base", {"parsed_agreement": 0.93, "refusal_rate": 0.02, "reasoning_cut": 0.07}))))
    assert "base 0.930 0.020 0.070" in text
    assert "cut short: reasonings that reached sampling.max_new_tokens" in text


def test_agreement_across_languages_has_a_line_a_pair(summary: Any, printed: Any, flat: Any) -> None:
    frame = summary(("base", {"agreement_word_en_zh": 0.8, "agreement_deed_en_zh": 0.7, "agreement_word_en_fr": 0.6}))
    text = flat(printed(pl.concat([frame, summary(("base", {}), language="zh")])))
    assert "base en–zh 0.800 [0.760, 0.840] 0.700 [0.660, 0.740] 500 en–fr 0.600 [0.560, 0.640] - 500" in text


def test_a_run_says_whether_it_was_bit_stable(summary: Any) -> None:
    whole = rows(summary, ("a", {"bit_stable": 1.0}), ("b", {"bit_stable": 1.0}))
    assert repetition(whole, 0.0) == [
        "At sampling.temperature 0 over the trials: bit-stable, every prompt had the same log-probabilities each time."
    ]
    moved = rows(summary, ("a", {"bit_stable": 1.0}), ("b", {"bit_stable": 0.931}))
    assert repetition(moved, 0.0) == [
        "At sampling.temperature 0 over the trials: not bit-stable; the same log-probabilities each time had b in 93.1 % of prompts."
    ]
    assert "had a in 99.9 % of prompts" in repetition(rows(summary, ("a", {"bit_stable": 0.9996})), 0.0)[0]
    assert repetition(rows(summary, ("a", {})), 0.0) == []
