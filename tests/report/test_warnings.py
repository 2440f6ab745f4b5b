"""Warnings: why figures should not be trusted."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from wdct_dist.config.schema import ReportConfig
from wdct_dist.report.warnings import warnings


def test_good_figures_have_no_warnings(summary: Any, printed: Any) -> None:
    assert warnings(summary(("a", {}), ("b", {})), ReportConfig()) == []
    assert "Before you trust" not in printed(summary(("a", {})))


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"label_mass": 0.12}, ["Label mass under report.min_label_mass=0.5 for weak (0.120)", "prompt.answer_prefix"]),
        (
            {"parse_rate": 0.8, "cs_lower": 0.5, "cs_upper": 0.7},
            ["have an answer that can be read for weak (0.800, CS from 0.500 to 0.700 as items without any answer differ", "`error`"],
        ),
        (
            {"position_deed": 0.97, "position_first_deed": 0.9, "position_last_deed": 0.1},
            ["report.max_position_share=0.9, for weak (deed 0.970, first label 0.900, last label 0.100)", "debiased CS"],
        ),
        ({"tie_rate": 0.13}, ["exact ties for weak (0.130)", "engine.dtype=float32"]),
        ({"refusal_rate": 0.25}, ["of the replies decline to answer for weak (0.250)", "`wdct score`"]),
        ({"trial_agreement": 0.6}, ["less often than 0.8 for weak (0.600)", "sampling.temperature"]),
        ({"reasoning_cut": 0.4}, ["the reasonings reached sampling.max_new_tokens", "for weak (0.400)", "`length`"]),
        ({"suspicious_rate": 0.014}, ["7 of 500 items are suspicious", "`wdct check`"]),
        ({"cs": None}, ["No CS for weak", "`error`"]),
    ],
    ids=["label mass", "parse rate", "position", "ties", "refusals", "trials", "reasoning cut", "suspicious items", "no cs"],
)
def test_a_figure_that_should_not_be_trusted_is_warned_of_with_what_to_do(
    figures: Any, words: list[str], summary: Any, printed: Any, flat: Any
) -> None:
    frame = summary(("fine", {}), ("weak", figures))
    found = warnings(frame, ReportConfig())
    assert len(found) == 1
    for word in words:
        assert word in found[0]
    assert "fine" not in found[0]
    assert flat(found[0])[:40] in flat(printed(frame))


def test_the_limits_are_those_of_the_configuration(summary: Any) -> None:
    frame = summary(("a", {"label_mass": 0.12, "parse_rate": 0.8, "position_word": 0.97}))
    assert len(warnings(frame, ReportConfig())) == 3
    assert warnings(frame, ReportConfig(min_label_mass=0.1, min_parse_rate=0.5, max_position_share=0.98)) == []


def test_a_figure_exactly_at_its_limit_is_no_warning(summary: Any) -> None:
    at = {"label_mass": 0.5, "parse_rate": 0.9, "position_word": 0.9, "tie_rate": 0.1, "refusal_rate": 0.1, "trial_agreement": 0.8}
    assert warnings(summary(("a", at)), ReportConfig()) == []


def test_a_warning_for_many_checkpoints_names_five_and_counts_the_rest(summary: Any) -> None:
    frame = summary(*((f"c{number}", {"label_mass": 0.1}) for number in range(12)))
    (found,) = warnings(frame, ReportConfig())
    assert "c4 (0.100); and 7 more" in found
    assert "c5" not in found


def test_undefined_quality_figures_are_no_warning_of_their_own(summary: Any, good: Any) -> None:
    nothing = dict.fromkeys(good)
    found = warnings(summary(("a", nothing | {"parse_rate": 0.0, "cs_lower": 0.0, "cs_upper": 1.0})), ReportConfig())
    assert [text.split(" ")[0] for text in found] == ["No", "Fewer"]


def test_a_family_is_named_once_by_its_worst_member(summary: Any) -> None:
    members = [
        summary(("base", {"label_mass": mass, "position_word": 0.95}), variant=f"augmented/wording={number}")
        for number, mass in enumerate([0.9, 0.3, 0.4])
    ]
    family = summary(("base", {}), variant="augmented").filter(pl.col("metric").is_in(["cs", "pcs"]))
    mass, place = warnings(pl.concat([*members, family]), ReportConfig())
    assert "for base (2 of 3 members, the worst wording=1: 0.300): most" in mass
    assert "for base (3 of 3 members, the worst wording=2: word 0.950" in place
