"""The report in a terminal, and its warnings."""

from __future__ import annotations

import io
from typing import Any

import polars as pl
import pytest
from rich.cells import cell_len
from rich.console import Console

from wdct_dist.config.schema import Config, EngineKind, ReportConfig
from wdct_dist.report.terminal import comparisons, facts, print_report, rows_of, warnings
from wdct_dist.tables import schema

GOOD: dict[str, float | None] = {
    "cs": 0.71, "cs_debiased": 0.74, "cs_chance": 0.5, "cs_stable": 0.8, "cs_lower": 0.71, "cs_upper": 0.71, "pcs": 0.83,
    "pcs_debiased": 0.9, "parse_rate": 1.0, "label_mass": 0.98, "tie_rate": 0.01, "suspicious_rate": 0.0, "position_word": 0.6,
    "position_deed": 0.6, "position_first_word": 0.5, "position_last_word": 0.5, "position_first_deed": 0.5, "position_last_deed": 0.5,
}  # fmt: skip


def summary(
    *checkpoints: tuple[str, dict[str, float | None]], variant: str = "direct", language: str = "en", domains: Any = ()
) -> pl.DataFrame:
    """A summary of 500 items with `GOOD` figures but for those given; intervals reach 0.04 to both sides."""
    rows = [
        {
            "checkpoint_id": name,
            "variant": variant,
            "language": language,
            "domain": domain,
            "metric": metric,
            "value": value,
            "ci_low": None if value is None else value - 0.04,
            "ci_high": None if value is None else value + 0.04,
            "level": 0.95,
            "n": 0 if value is None else 500,
        }
        for name, changed in checkpoints
        for domain in ("all", *domains)
        for metric, value in (GOOD | changed).items()
    ]
    return pl.DataFrame(rows, schema=pl.DataFrame(schema.SCORES_SUMMARY.empty_table()).schema)


def printed(frame: pl.DataFrame, *, width: int = 80, provenance: Any = None, encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    print_report(frame, Config(), provenance or {}, Console(file=file, width=width))
    file.flush()
    return raw.getvalue().decode(encoding)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_figures_stand_beside_their_checkpoint_with_intervals() -> None:
    text = printed(summary(("base", {}), ("tuned", {"cs": 0.5}), domains=["Opinion", "EthV"]))
    assert "base 0.710 [0.670, 0.750] 0.830 [0.790, 0.870] 0.500 500" in flat(text)
    assert "base 0.740 0.900 0.800 (500) 0.980 1.000 0.010" in flat(text)
    assert "checkpoint Opinion EthV" in flat(text)
    assert "tuned 0.500 0.500" in flat(text)


def test_undefined_is_a_dash() -> None:
    text = printed(summary(("base", {"cs_stable": None, "cs": None})))
    assert "base - 0.830 [0.790, 0.870] 0.500 0" in flat(text)
    assert "base 0.740 0.900 - (0) 0.980" in flat(text)


def test_80_columns_are_never_exceeded_nor_a_name_or_figure_cut() -> None:
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


def test_without_a_terminal_there_are_no_control_codes() -> None:
    assert "\x1b" not in printed(summary(("base", {"label_mass": 0.1})))


def test_an_output_that_cannot_say_chinese_still_gets_the_report() -> None:
    text = printed(summary(("模型", {"label_mass": 0.1})), encoding="ascii")
    assert "??" in text
    assert "0.710" in text


def test_variant_and_language_are_named_where_they_differ() -> None:
    one = printed(summary(("base", {})))
    assert "direct" not in one
    two = printed(pl.concat([summary(("base", {})), summary(("base", {}), language="zh")]))
    assert "checkpoint, language" in flat(two)
    assert "base, zh 0.710" in flat(two)


def test_many_domains_go_into_several_tables() -> None:
    text = printed(summary(("base", {}), domains=[f"domain-{number}" for number in range(7)]))
    assert text.count("CS by domain") == 2
    assert all(f"domain-{number}" in text for number in range(7))


def test_what_the_run_says_of_itself_stands_on_top() -> None:
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


def test_pseudo_answers_are_called_that() -> None:
    config = Config()
    config.engine.kind = EngineKind.scripted
    assert "engine scripted: pseudo-answers, no model, orders rotations, trials 1" in facts(config, {"checkpoints": [{"dtype": "none"}]})


def test_no_answers_say_so() -> None:
    assert "there are no answers yet" in printed(summary())


def test_best_and_worst_are_named_with_what_their_intervals_say() -> None:
    frame = summary(("a", {"cs": 0.6}), ("b", {"cs": 0.7}), ("c", {"cs": 0.5}), ("d", {"cs": None}))
    assert comparisons(rows_of(frame)) == [
        "CS is highest for b (0.700 [0.660, 0.740]) and lowest for c (0.500 [0.460, 0.540]); their intervals do not overlap."
    ]
    near = summary(("a", {"cs": 0.6}), ("b", {"cs": 0.61}))
    assert comparisons(rows_of(near))[0].endswith("their intervals overlap, so this alone does not order them.")


def test_one_checkpoint_is_not_compared_and_equal_ones_are_said_to_be_equal() -> None:
    assert comparisons(rows_of(summary(("a", {})))) == []
    assert comparisons(rows_of(summary(("a", {}), ("b", {})))) == ["The 2 checkpoints have the same CS, 0.710."]


def test_checkpoints_are_compared_within_a_variant() -> None:
    frame = pl.concat([summary(("a", {}), ("b", {"cs": 0.5})), summary(("a", {"cs": 0.4}), ("b", {}), variant="cot")])
    first, second = comparisons(rows_of(frame))
    assert first.startswith("direct, en: CS is highest for a")
    assert second.startswith("cot, en: CS is highest for b")


def test_good_figures_have_no_warnings() -> None:
    assert warnings(summary(("a", {}), ("b", {})), ReportConfig()) == []
    assert "Before you trust" not in printed(summary(("a", {})))


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"label_mass": 0.12}, ["Label mass under report.min_label_mass=0.5 for weak (0.120)", "prompt.answer_prefix"]),
        (
            {"parse_rate": 0.8, "cs_lower": 0.5, "cs_upper": 0.7},
            ["report.min_parse_rate=0.9 have an answer for weak (0.800)", "weak: 0.500 to 0.700", "`error`"],
        ),
        (
            {"position_deed": 0.97, "position_first_deed": 0.9, "position_last_deed": 0.1},
            ["report.max_position_share=0.9, for weak (deed 0.970, first label 0.900, last label 0.100)", "debiased CS"],
        ),
        ({"tie_rate": 0.13}, ["exact ties for weak (0.130)", "engine.dtype=float32"]),
        ({"suspicious_rate": 0.014}, ["7 of 500 items are suspicious", "`wdct check`"]),
        ({"cs": None}, ["No CS for weak", "`error`"]),
    ],
    ids=["label mass", "parse rate", "position", "ties", "suspicious items", "no cs"],
)
def test_a_figure_that_should_not_be_trusted_is_warned_of_with_what_to_do(figures: Any, words: list[str]) -> None:
    frame = summary(("fine", {}), ("weak", figures))
    found = warnings(frame, ReportConfig())
    assert len(found) == 1
    for word in words:
        assert word in found[0]
    assert "fine" not in found[0]
    assert flat(found[0])[:40] in flat(printed(frame))


def test_the_limits_are_those_of_the_configuration() -> None:
    frame = summary(("a", {"label_mass": 0.12, "parse_rate": 0.8, "position_word": 0.97}))
    assert len(warnings(frame, ReportConfig())) == 3
    assert warnings(frame, ReportConfig(min_label_mass=0.1, min_parse_rate=0.5, max_position_share=0.98)) == []


def test_a_figure_exactly_at_its_limit_is_no_warning() -> None:
    at = {"label_mass": 0.5, "parse_rate": 0.9, "position_word": 0.9, "tie_rate": 0.1}
    assert warnings(summary(("a", at)), ReportConfig()) == []


def test_a_warning_for_many_checkpoints_names_five_and_counts_the_rest() -> None:
    frame = summary(*((f"c{number}", {"label_mass": 0.1}) for number in range(12)))
    (found,) = warnings(frame, ReportConfig())
    assert "c4 (0.100); and 7 more" in found
    assert "c5" not in found


def test_undefined_quality_figures_are_no_warning_of_their_own() -> None:
    nothing = dict.fromkeys(GOOD)
    found = warnings(summary(("a", nothing | {"parse_rate": 0.0, "cs_lower": 0.0, "cs_upper": 1.0})), ReportConfig())
    assert [text.split(" ")[0] for text in found] == ["No", "Fewer"]
