"""What the engines of a run were, from its events."""

from __future__ import annotations

from typing import Any

from wdct_dist.report.engines import engines_table


def started(engine: int, hardware: str | None, dtype: str = "bfloat16") -> dict[str, Any]:
    told = {} if hardware is None else {"hardware": hardware, "dtype": dtype, "vllm": "0.32.0"}
    return {"event": "engine started", "engine": engine, "checkpoint": "a", "seconds": 1.0} | told


def swapped(engine: int) -> dict[str, Any]:
    return {"event": "engine swapped", "engine": engine, "checkpoint": "b", "seconds": 1.0}


def test_engines_of_a_kind_are_a_row_with_their_starts_and_swaps() -> None:
    events = [
        started(0, "8 × H100"),
        started(1, "8 × H100"),
        started(2, "a CPU", "float32"),
        swapped(0),
        swapped(2),
        started(0, "8 × H100"),
    ]
    table = engines_table(events)
    assert table is not None
    assert table.rows == (
        ("8 × H100", "bfloat16", "0.32.0", "2", "3", "1"),
        ("a CPU", "float32", "0.32.0", "1", "1", "1"),
    )


def test_a_run_of_before_engines_told_what_they_are_says_so() -> None:
    table = engines_table([started(0, None)])
    assert table is not None
    assert table.rows[0][0] == "not told"


def test_a_run_without_engines_has_no_table() -> None:
    assert engines_table([{"event": "plan"}]) is None
