"""Pacing, pauses and budgets, on a clock of the test's own."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import pytest

from wdct_dist.config.schema import EndpointConfig, PriceConfig
from wdct_dist.engine.endpoint_limits import Budget, Limit, Pace, TokenEstimate, Usage, budget_limits, pause_s, retry_after_s, spent_before
from wdct_dist.errors import ConfigError


def test_requests_are_spaced_evenly_at_their_rate() -> None:
    pace = Pace(60)
    assert [pace.take(1, 100.0) for _ in range(4)] == pytest.approx([0, 1, 2, 3])


def test_a_rate_that_was_not_used_is_not_saved_up() -> None:
    pace = Pace(60)
    pace.take(1, 0.0)
    assert [pace.take(1, 500.0) for _ in range(2)] == pytest.approx([0, 1])


def test_large_amounts_wait_for_their_size_and_what_is_given_back_shortens_the_next_wait() -> None:
    pace = Pace(600)
    assert pace.take(100, 0.0) == 0
    assert pace.take(1, 0.0) == pytest.approx(10)
    pace.give_back(50)
    assert pace.take(1, 0.0) == pytest.approx(5.1)


def test_pauses_double_up_to_a_minute_and_half_of_each_is_random() -> None:
    generator = random.Random(0)
    for attempt, whole in enumerate([1, 2, 4, 8, 16, 32, 60, 60], 1):
        pauses = [pause_s(attempt, 1.0, generator) for _ in range(200)]
        assert whole / 2 <= min(pauses) < 0.6 * whole
        assert 0.9 * whole < max(pauses) <= whole


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "0.5"}, 0.5),
        ({"Retry-After": "Thu, 01 Jan 2026 00:01:30 GMT"}, 90.0),
        ({"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT"}, 0.0),
        ({"retry-after-ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-3"}, None),
        ({"Retry-After": "inf"}, None),
        ({}, None),
    ],
)
def test_what_a_server_asks_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_s(headers, datetime(2026, 1, 1, tzinfo=UTC)) == seconds


def test_a_budget_lets_go_only_what_fits_beside_all_that_is_under_way() -> None:
    budget = Budget([Limit("tokens", 100)], {"tokens": 20.0})
    assert budget.reserve(Usage(30, 10))
    assert not budget.reserve(Usage(30, 11))
    assert budget.exceeded_by(Usage(30, 11)) is None  # what is under way may need less
    budget.settle(Usage(30, 10), Usage(30, 1))
    assert budget.reserve(Usage(30, 11))
    budget.settle(Usage(30, 11), Usage(30, 11))
    assert not budget.reserve(Usage(8, 1))
    assert budget.exceeded_by(Usage(8, 1)) == "tokens"
    assert budget.exceeded_by(Usage(7, 1)) is None


def test_money_is_counted_by_each_models_prices() -> None:
    settings = EndpointConfig(budget_tokens=10**6, budget_money=1.0, prices={"a": PriceConfig(2, 10), "b": PriceConfig(0, 1)})
    spent = spent_before(settings, {"a": Usage(100_000, 10_000), "b": Usage(50_000, 200_000)})
    assert spent == pytest.approx({"engine.endpoint.budget_tokens": 360_000, "engine.endpoint.budget_money": 0.2 + 0.1 + 0.2})
    with pytest.raises(ConfigError, match=r"engine\.endpoint\.prices: there is no price of c"):
        budget_limits(settings, "c")


def test_tokens_are_estimated_above_the_largest_ratio_that_was_seen() -> None:
    estimate = TokenEstimate()
    assert estimate.tokens(1000) == 8 + 625
    estimate.learn(1000, 200)
    assert estimate.tokens(1000) == 8 + 250
    estimate.learn(100, 40)
    estimate.learn(1000, 100)
    assert estimate.tokens(1000) == 8 + 500
