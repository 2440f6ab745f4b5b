"""pending = plan − completed."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.config.schema import Config, Orders
from wdct_dist.dispatch.plan import Unit, fewest_units, pending_units, subtract
from wdct_dist.items.selection import select_items
from wdct_dist.prompts.build import build_prompts
from wdct_dist.tables.prompts_file import PromptIndex, VariantRange, index_of
from wdct_dist.tables.shards import DIGEST_LENGTH, ShardKey

INDEX = PromptIndex(250, (VariantRange("direct", 0, 150), VariantRange("cot", 150, 250)), "d")
A, B = scripted_checkpoint("a"), scripted_checkpoint("b")


def key(start: int, stop: int, trial: int = 0, digest: str = A.digest) -> ShardKey:
    return ShardKey(digest[:DIGEST_LENGTH], trial, start, stop)


def test_everything_is_pending_at_first_and_no_shard_crosses_variants() -> None:
    units = pending_units([A], INDEX, 1, 100, [])
    assert [(unit.variant, unit.start, unit.stop) for unit in units] == [("direct", 0, 100), ("direct", 100, 150), ("cot", 150, 250)]


def test_trials_and_checkpoints_are_units_of_their_own() -> None:
    assert len(pending_units([A, B], INDEX, 3, 100, [])) == 2 * 3 * 3


@pytest.mark.parametrize("orders", ["as_given", "rotations"])
def test_what_a_plan_has_at_least_is_known_before_there_are_prompts(orders: str, tmp_path: Path) -> None:
    config = Config(run_dir=str(tmp_path), variants=["direct", "joint"], orders=Orders(orders))
    items = select_items(config.data)
    units = pending_units([A, B], index_of(build_prompts(items, config)), 3, 64, [])
    fewest = fewest_units(2, items.num_items, 2, 3, 64)
    assert len(units) == fewest if orders == "as_given" else len(units) > fewest > len(units) / 4


def test_what_is_completed_is_not_pending_again() -> None:
    done = [unit_key(unit) for unit in pending_units([A], INDEX, 1, 100, [])]
    assert pending_units([A], INDEX, 1, 100, done) == []


def test_another_shard_size_on_resume_asks_only_for_what_is_missing() -> None:
    units = pending_units([A], INDEX, 1, 64, [key(0, 100)])
    assert [(unit.start, unit.stop) for unit in units] == [(100, 150), (150, 214), (214, 250)]


def test_shards_of_other_weights_under_the_same_name_count_for_nothing() -> None:
    assert len(pending_units([A], INDEX, 1, 100, [key(0, 100, digest=B.digest)])) == 3


def test_the_parts_of_a_split_unit_make_up_the_unit() -> None:
    parts = Unit("a", A.digest, "direct", 0, 10, 30).split(8)
    assert parts[0].start == 10
    assert parts[-1].stop == 30
    assert all(left.stop == right.start for left, right in itertools.pairwise(parts))
    assert len(Unit("a", A.digest, "direct", 0, 10, 13).split(8)) == 3


spans = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))


@given(spans, st.lists(spans, max_size=6))
def test_subtraction_is_that_of_sets(span: tuple[int, int], covered: list[tuple[int, int]]) -> None:
    left = {number for start, stop in subtract(span, sorted(covered)) for number in range(start, stop)}
    assert left == set(range(*span)) - {number for pair in covered for number in range(*pair)}


def unit_key(unit: Unit) -> ShardKey:
    return key(unit.start, unit.stop, unit.trial, unit.digest)
