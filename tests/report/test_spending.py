"""What an API was asked for, in tokens and money."""

from __future__ import annotations

from wdct_dist.config.schema import EndpointConfig, PriceConfig
from wdct_dist.engine.endpoint_limits import Usage
from wdct_dist.report.spending import spending_table

USED = {"small": Usage(1_000_000, 100_000), "large": Usage(20_000, 2_000)}
PRICES = {"small": PriceConfig(0.5, 2.0), "large": PriceConfig(10.0, 30.0)}


def test_tokens_and_money_stand_by_model_and_together_beside_the_budget() -> None:
    table = spending_table(EndpointConfig(prices=PRICES, budget_money=2.0, budget_tokens=4_000_000), USED)
    assert table is not None
    assert table.rows == (
        ("small", "1,000,000", "100,000", "0.7000"),
        ("large", "20,000", "2,000", "0.2600"),
        ("all", "1,020,000", "102,000", "0.9600"),
    )
    assert table.notes[2:] == (
        "engine.endpoint.budget_tokens: 1,122,000 of 4,000,000 used, 28%",
        "engine.endpoint.budget_money: 0.9600 of 2.00 used, 48%",
    )


def test_a_model_without_a_price_has_no_cost_and_the_whole_has_none() -> None:
    table = spending_table(EndpointConfig(prices={"small": PRICES["small"]}), USED)
    assert table is not None
    assert [row[-1] for row in table.rows] == ["0.7000", "-", "-"]


def test_a_run_that_used_nothing_has_no_table() -> None:
    assert spending_table(EndpointConfig(prices=PRICES), {}) is None
