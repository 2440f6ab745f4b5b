"""Which prompt killed the engine."""

from __future__ import annotations

from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.suspects import SPLIT_PARTS, Suspects


def unit(start: int, stop: int) -> Unit:
    return Unit("a", "digest-a", "direct", 0, start, stop)


def test_what_was_in_flight_with_others_is_run_again_as_it_is_however_often_that_happens() -> None:
    suspects = Suspects(max_attempts=2)
    for _ in range(5):
        assert suspects.after_death(unit(0, 64), "killed", alone=False) == [unit(0, 64)]
    assert unit(0, 64) not in suspects


def test_what_kills_alone_twice_is_split_and_a_part_that_kills_once_is_split_again() -> None:
    suspects = Suspects(max_attempts=2)
    assert suspects.after_death(unit(0, 64), "killed", alone=True) == [unit(0, 64)]
    parts = suspects.after_death(unit(0, 64), "killed", alone=True)
    assert [(part.start, part.stop) for part in parts] == [(n, n + 64 // SPLIT_PARTS) for n in range(0, 64, 64 // SPLIT_PARTS)]
    assert [part.num_prompts for part in suspects.after_death(parts[3], "killed", alone=True)] == [1] * 8


def test_a_single_prompt_is_given_all_its_attempts_and_then_recorded_with_the_reason() -> None:
    suspects = Suspects(max_attempts=2)
    for _ in range(2):
        single = suspects.after_death(unit(0, 8), "killed", alone=True)[0]
    assert single == unit(0, 1)
    assert suspects.after_death(single, "out of memory", alone=True) == [single]
    assert suspects.after_death(single, "out of memory", alone=True) == []
    [(poisonous, error)] = suspects.poisonous
    assert poisonous == single
    assert "out of memory" in error
    assert "alone in the engine, 2 times" in error


def test_what_was_done_is_no_suspect_any_more_and_a_record_is_told_from_an_answer() -> None:
    suspects = Suspects(max_attempts=1)
    suspects.after_death(unit(0, 1), "killed", alone=True)
    suspects.after_death(unit(1, 2), "killed", alone=False)
    assert suspects.forget(unit(0, 1))
    assert not suspects.forget(unit(1, 2))
    assert unit(0, 1) not in suspects
