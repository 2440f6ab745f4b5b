from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from wdct_dist.align.preferences import HELD_OUT, TIED, TRAIN, find_preferences, read_preferences, write_preferences
from wdct_dist.errors import BadInput, DataError
from wdct_dist.tables.storage import Store


def test_the_answer_on_the_target_side_is_rejected_and_the_opposite_option_chosen(said: Any, scores: Any, pairs_of_options: Any) -> None:
    a, b = pairs_of_options[:2]
    table = scores([said(a, 0, 1), said(b, 1, 1)])
    found = {side: find_preferences(table, [a, b], "base", side).table for side in ("word", "deed")}
    columns = ["item_id", "baseline_option", "target_option", "other_side_baseline_option", "split", "left_out"]
    assert found["word"].select(columns).rows() == [(a.item_id, 0, 1, 1, TRAIN, None), (b.item_id, 1, 0, 1, TRAIN, None)]
    assert found["deed"].select(columns).rows() == [(a.item_id, 1, 0, 0, TRAIN, None), (b.item_id, 1, 0, 1, TRAIN, None)]
    assert found["deed"].select("baseline_id", "target_side").unique().rows() == [("base", "deed")]


def test_items_without_an_answer_or_with_a_tie_are_left_out_and_counted(said: Any, scores: Any, pairs_of_options: Any) -> None:
    a, b, c, d = pairs_of_options[:4]
    table = scores([said(a, 0, None), said(b, None, 1), said(c, "tie", 1), said(d, "tie", 0)])
    found = find_preferences(table, [a, b, c, d], "base", "word")
    assert found.num_left_out == {TIED: 2, "the baseline has no answer (error)": 1}
    assert found.table["split"].to_list() == [TRAIN, None, None, None]
    assert found.table["target_option"].to_list() == [1, None, None, None]
    assert found.lines() == [
        "word of base: 1 items to train on, 0 held out",
        f"2 items left out: {TIED}",
        "1 items left out: the baseline has no answer (error)",
    ]


def test_of_more_than_two_options_the_least_probable_one_is_chosen(said: Any, scores: Any, items: Any) -> None:
    four = next(item for item in items if item.num_options == 4)
    table = scores([said(four, 1, 1, (0.2, 0.5, 0.05, 0.25))])
    assert find_preferences(table, [four], "base", "word").table["target_option"].to_list() == [2]


def test_of_equally_improbable_options_one_is_drawn_and_not_always_the_first(said: Any, scores: Any, items: Any) -> None:
    four = next(item for item in items if item.num_options == 4)
    table = scores([said(four, 1, 1, (0.1, 0.7, 0.1, 0.1))])
    drawn = {find_preferences(table, [four], "base", "word", seed=seed).table["target_option"][0] for seed in range(20)}
    assert drawn == {0, 2, 3}


def test_over_trials_the_answer_is_what_most_of_them_say(said: Any, scores: Any, pairs_of_options: Any) -> None:
    a, b = pairs_of_options[:2]
    answers = [(a, [0, 1, 1]), (b, [0, 1, "tie"])]
    table = scores([said(item, answer, 0, trial=trial) for item, given in answers for trial, answer in enumerate(given)])
    found = find_preferences(table, [a, b], "base", "word").table
    assert found["baseline_option"].to_list() == [1, None]
    assert found["left_out"].to_list() == [None, TIED]


def test_the_same_share_of_each_domain_is_held_out_and_the_same_items_for_both_sides(said: Any, scores: Any, items: Any) -> None:
    table = scores([said(item, 0, 1, tuple([0.6] + [0.4 / (item.num_options - 1)] * (item.num_options - 1))) for item in items])
    one, other = (find_preferences(table, items, "base", side, held_out=0.25, seed=3) for side in ("word", "deed"))
    shares = one.table.group_by("domain").agg(held=(pl.col("split") == HELD_OUT).mean(), number=pl.len())
    assert shares["number"].to_list() == [24] * 4
    assert shares["held"].to_list() == [0.25] * 4
    assert one.split(HELD_OUT)["item_id"].to_list() == other.split(HELD_OUT)["item_id"].to_list()
    again = find_preferences(table, items, "base", "word", held_out=0.25, seed=4)
    assert again.split(HELD_OUT)["item_id"].to_list() != one.split(HELD_OUT)["item_id"].to_list()
    assert one.table["item_id"].to_list() == [item.item_id for item in items]


def test_a_domain_is_never_held_out_whole(said: Any, scores: Any, pairs_of_options: Any) -> None:
    table = scores([said(pairs_of_options[0], 0, 1)])
    assert find_preferences(table, pairs_of_options, "base", "word", held_out=0.9).split(TRAIN).height == 1


def test_only_the_chosen_domains_are_aligned(said: Any, scores: Any, pairs_of_options: Any) -> None:
    table = scores([said(item, 0, 1) for item in pairs_of_options])
    found = find_preferences(table, pairs_of_options, "base", "word", domains=["Opinion", "NonEthV"])
    assert set(found.table["domain"]) == {"Opinion", "NonEthV"}
    with pytest.raises(DataError, match="domains: no item is of Sport; the baseline's items are of Opinion"):
        find_preferences(table, pairs_of_options, "base", "word", domains=["Sport"])


def test_what_cannot_be_is_said_with_what_is_allowed(said: Any, scores: Any, pairs_of_options: Any) -> None:
    table = scores([said(pairs_of_options[0], None, 1)])
    with pytest.raises(BadInput, match="target_side: 'thought' came; allowed are word and deed"):
        find_preferences(table, pairs_of_options, "base", "thought")
    with pytest.raises(BadInput, match=r"held_out: 1\.0 came"):
        find_preferences(table, pairs_of_options, "base", "deed", held_out=1.0)
    with pytest.raises(DataError, match="no baseline answers of other to the variant direct in en; scored is: base, direct, en"):
        find_preferences(table, pairs_of_options, "other", "word")
    with pytest.raises(DataError, match=r"No item of base has a baseline answer on the side word .*\(1 items: the baseline has no answer"):
        find_preferences(table, pairs_of_options, "base", "word")


def test_preferences_are_read_as_they_were_written(said: Any, scores: Any, pairs_of_options: Any, tmp_path: Path) -> None:
    found = find_preferences(scores([said(item, 0, "tie") for item in pairs_of_options]), pairs_of_options, "base", "word", held_out=0.2)
    folder = Store(str(tmp_path)).child("align/base-word-seed0")
    write_preferences(folder, found)
    assert read_preferences(folder).table.equals(found.table)
    assert read_preferences(folder).target_side == "word"
