"""The report in a terminal."""

from __future__ import annotations

from typing import Any

import polars as pl
from rich.cells import cell_len

from wdct_dist.config.schema import Config, EngineKind
from wdct_dist.report.facts import facts
from wdct_dist.report.headline import comparisons
from wdct_dist.report.rows import rows_of


def test_figures_stand_beside_their_checkpoint_with_intervals(summary: Any, printed: Any, flat: Any) -> None:
    text = printed(summary(("base", {}), ("tuned", {"cs": 0.5}), domains=["Opinion", "EthV"]))
    assert "base 0.710 [0.670, 0.750] 0.830 [0.790, 0.870] 0.500 500" in flat(text)
    assert "base 0.740 0.900 0.800 (500) 0.980 1.000 0.010" in flat(text)
    assert "checkpoint Opinion EthV" in flat(text)
    assert "tuned 0.500 0.500" in flat(text)


def test_undefined_is_a_dash(summary: Any, printed: Any, flat: Any) -> None:
    text = printed(summary(("base", {"cs_stable": None, "cs": None})))
    assert "base - 0.830 [0.790, 0.870] 0.500 0" in flat(text)
    assert "base 0.740 0.900 - (0) 0.980" in flat(text)


def test_80_columns_are_never_exceeded_nor_a_name_or_figure_cut(summary: Any, printed: Any) -> None:
    name = "org/a-model-with-a-long-name-instruct-v0.3@0123456789abcdef/模型甲乙丙丁戊己庚辛[bold]x[/bold]"
    frame = pl.concat(
        [
            summary((name, {"label_mass": 0.1}), variant=variant, domains=["Opinion", "NonEthV", "EthV", "Theory"])
            for variant in ("direct", "cot")
        ]
    )
    text = printed(frame)
    assert max(cell_len(line) for line in text.splitlines()) <= 80
    assert "…" not in text
    assert "0.710 [0.670, 0.750]" in text
    assert "[bold]x[/bold], cot" in "".join(text.split()).replace(",cot", ", cot")


def test_in_a_narrow_terminal_a_table_is_wider_than_it_and_text_is_not(summary: Any, printed: Any) -> None:
    lines = printed(summary(("base", {"label_mass": 0.1})), width=40).splitlines()
    assert any("base" in line and "0.710 [0.670, 0.750]" in line for line in lines)
    assert max(len(line) for line in lines[lines.index("Before you trust these figures:") :]) <= 40


def test_without_a_terminal_there_are_no_control_codes(summary: Any, printed: Any) -> None:
    assert "\x1b" not in printed(summary(("base", {"label_mass": 0.1})))


def test_an_output_that_cannot_say_chinese_still_gets_the_report(summary: Any, printed: Any) -> None:
    text = printed(summary(("模型", {"label_mass": 0.1})), encoding="ascii")
    assert "??" in text
    assert "0.710" in text


def test_variant_and_language_are_named_where_they_differ(summary: Any, printed: Any, flat: Any) -> None:
    one = printed(summary(("base", {})))
    assert "direct" not in one
    two = printed(pl.concat([summary(("base", {})), summary(("base", {}), language="zh")]))
    assert "checkpoint, language" in flat(two)
    assert "base, zh 0.710" in flat(two)


def test_many_domains_go_into_several_tables(summary: Any, printed: Any) -> None:
    text = printed(summary(("base", {}), domains=[f"domain-{number}" for number in range(7)]))
    assert text.count("CS by domain") == 2
    assert all(f"domain-{number}" in text for number in range(7))


def test_what_the_run_says_of_itself_stands_on_top(summary: Any, printed: Any, flat: Any) -> None:
    provenance = {
        "data": {"items": 1225, "path": "items.csv"},
        "checkpoints": [{"checkpoint_id": "base", "dtype": "bfloat16"}],
        "failed_checkpoints": {"broken": "no config.json"},
    }
    text = flat(printed(summary(("base", {})), provenance=provenance))
    assert "1,225 items of items.csv" in text
    assert "precision as the checkpoints state it (bfloat16)" in text
    assert "intervals: 95 %, percentile bootstrap over items, 1,000 resamples, seed 0" in text
    assert "checkpoint broken failed: no config.json" in text


def test_a_float32_checkpoint_is_not_said_to_run_in_float32_where_vllm_chooses() -> None:
    said = facts(Config(), {"checkpoints": [{"checkpoint_id": "a", "dtype": "float32"}]})
    assert any("(float32, which vLLM runs in 16 bits unless engine.dtype is float32)" in line for line in said)


def test_pseudo_answers_are_called_that() -> None:
    config = Config()
    config.engine.kind = EngineKind.scripted
    assert "engine scripted: pseudo-answers, no model, orders rotations, trials 1" in facts(config, {"checkpoints": [{"dtype": "none"}]})


def test_no_answers_say_so(summary: Any, printed: Any) -> None:
    assert "there are no answers yet" in printed(summary())


def test_best_and_worst_are_named_with_what_their_intervals_say(summary: Any) -> None:
    frame = summary(("a", {"cs": 0.6}), ("b", {"cs": 0.7}), ("c", {"cs": 0.5}), ("d", {"cs": None}))
    assert comparisons(rows_of(frame)) == [
        "CS is highest for b (0.700 [0.660, 0.740]) and lowest for c (0.500 [0.460, 0.540]); their intervals do not overlap."
    ]
    near = summary(("a", {"cs": 0.6}), ("b", {"cs": 0.61}))
    assert comparisons(rows_of(near))[0].endswith("their intervals overlap, so this alone does not order them.")


def test_all_that_share_the_highest_cs_are_named(summary: Any) -> None:
    several = {"cs": 0.7}
    frame = summary(("a", several), ("b", {"cs": 0.5}), *((name, several) for name in ("c", "d", "e")))
    interval = "(0.700 [0.660, 0.740])"
    assert comparisons(rows_of(frame))[0].startswith(f"CS is highest for a {interval}, c {interval}, d {interval}, 1 more and lowest for b")


def test_one_checkpoint_is_not_compared_and_equal_ones_are_said_to_be_equal(summary: Any) -> None:
    assert comparisons(rows_of(summary(("a", {})))) == []
    assert comparisons(rows_of(summary(("a", {}), ("b", {})))) == ["The 2 checkpoints have the same CS, 0.710."]


def test_checkpoints_are_compared_within_a_variant(summary: Any) -> None:
    frame = pl.concat([summary(("a", {}), ("b", {"cs": 0.5})), summary(("a", {"cs": 0.4}), ("b", {}), variant="cot")])
    first, second = comparisons(rows_of(frame))
    assert first.startswith("direct, en: CS is highest for a")
    assert second.startswith("cot, en: CS is highest for b")
