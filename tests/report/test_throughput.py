"""How fast a run was, from its events."""

from __future__ import annotations

from typing import Any

from wdct_dist.report.standing import Standing
from wdct_dist.report.throughput import throughput_table


def done(shard: str, **tokens: int) -> dict[str, Any]:
    counted = {"prompt_tokens": 100, "cached_tokens": 25, "output_tokens": 4} | tokens
    return {"event": "unit done", "checkpoint": "a", "variant": "direct", "shard": shard, **counted}


def test_a_row_has_the_standing_and_the_tokens_of_a_checkpoint_and_variant() -> None:
    standing = {"a": [Standing("direct", wanted=20, done=12, errors=1, prompts_per_s=3.25)]}
    table = throughput_table(standing, [done("1"), done("2", cached_tokens=75)])
    assert table is not None
    assert table.rows == (("a, direct", "12 of 20", "1", "3.2", "200", "50%", "8"),)


def test_a_unit_that_was_done_twice_counts_once() -> None:
    table = throughput_table({"a": [Standing("direct", wanted=4, done=4)]}, [done("1"), done("1")])
    assert table is not None
    assert table.rows == (("a, direct", "4 of 4", "0", "-", "100", "25%", "4"),)


def test_a_run_without_checkpoints_has_no_table() -> None:
    assert throughput_table({}, []) is None
