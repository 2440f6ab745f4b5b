"""What loading and evaluating cost: by sizes and tokens at first, by what was measured later."""

from __future__ import annotations

import pytest

from wdct_dist.dispatch.costs import SHORTEST_PATIENCE_S, UNMEASURED_PATIENCE_S, Costs, Profile
from wdct_dist.dispatch.plan import Unit

TOKENS = {"direct": 100.0, "cot": 900.0}
PROFILES = {
    "small": Profile("s", 2 * 10**9, TOKENS),
    "other": Profile("s", 2 * 10**9, TOKENS),
    "large": Profile("l", 140 * 10**9, TOKENS),
}


def unit(checkpoint: str, variant: str = "direct", num_prompts: int = 100) -> Unit:
    return Unit(checkpoint, checkpoint, variant, 0, 0, num_prompts)


def test_before_anything_is_measured_costs_are_weights_by_size_and_tokens() -> None:
    costs = Costs(PROFILES)
    assert not costs.measured
    assert costs.unit_s(unit("large")) > 40 * costs.unit_s(unit("small"))
    assert costs.unit_s(unit("small", "cot")) == pytest.approx(9 * costs.unit_s(unit("small")))
    assert costs.load_s("large") == 0.0


def test_what_was_measured_of_one_checkpoint_is_what_others_are_expected_to_take() -> None:
    costs = Costs(PROFILES)
    costs.unit_took(unit("small"), 10.0)
    assert costs.measured
    assert costs.prompt_s("small", "direct") == pytest.approx(0.1)
    assert costs.prompt_s("other", "direct") == pytest.approx(0.1)
    assert costs.prompt_s("small", "cot") == pytest.approx(0.9)
    assert costs.prompt_s("large", "direct") > 4.0


def test_own_measurements_outweigh_what_was_expected() -> None:
    costs = Costs(PROFILES)
    costs.unit_took(unit("small"), 10.0)
    costs.unit_took(unit("large"), 20.0)
    assert costs.prompt_s("large", "direct") == pytest.approx(0.2)
    assert costs.prompt_s("small", "direct") == pytest.approx(0.1)


def test_checkpoints_of_one_signature_swap_where_engines_may() -> None:
    costs = Costs(PROFILES, can_swap=True)
    assert costs.swaps("other", after="small")
    assert not costs.swaps("large", after="small")
    assert not costs.swaps("small", after=None)
    assert not Costs(PROFILES).swaps("other", after="small")


def test_a_larger_checkpoint_takes_longer_to_load_and_a_swap_less_than_a_start() -> None:
    costs = Costs(PROFILES, can_swap=True)
    costs.load_took("small", 12.0, swapped=False)
    assert costs.load_s("small") == pytest.approx(12.0)
    assert costs.load_s("large") > 100.0
    assert 0 < costs.load_s("other", after="small") < 3.0
    costs.load_took("other", 0.5, swapped=True)
    assert costs.load_s("small", after="other") == pytest.approx(0.5)
    assert costs.load_s("small") == pytest.approx(12.0)


def test_patience_is_never_short_and_longest_where_nothing_was_measured() -> None:
    costs = Costs(PROFILES)
    assert costs.patience_s([unit("small")]) == UNMEASURED_PATIENCE_S
    costs.unit_took(unit("small"), 1.0)
    assert costs.patience_s([unit("small")]) == SHORTEST_PATIENCE_S
    assert costs.patience_s([unit("small", num_prompts=10_000)] * 2) == pytest.approx(20 * 2 * 100.0)
    assert costs.patience_s([unit("small", "cot")]) == UNMEASURED_PATIENCE_S


def test_what_is_remembered_of_a_run_is_what_it_measured_itself() -> None:
    costs = Costs(PROFILES)
    costs.prompts_took("small", "direct", 50, 100.0)
    assert costs.measured_here("small") == (0, 0.0)
    costs.unit_took(unit("small"), 10.0)
    assert costs.measured_here("small") == (100, 10.0)
    assert costs.measured_swap_s("small") is None
