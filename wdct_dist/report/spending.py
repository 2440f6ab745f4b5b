"""What a run has used of an API: tokens by model, and money where the configuration has prices."""

from __future__ import annotations

from collections.abc import Mapping

from wdct_dist.config.schema import EndpointConfig
from wdct_dist.engine.endpoint_limits import Usage
from wdct_dist.report.layout import Table


def spending_table(settings: EndpointConfig, used: Mapping[str, Usage]) -> Table | None:
    """One row for each model that was asked, and the budget; `used` as `tokens_used` returns it. None where nothing was used."""
    if not used:
        return None
    costs = {model: _cost(settings, model, usage) for model, usage in used.items()}
    whole = sum(used.values(), Usage())
    known = [cost for cost in costs.values() if cost is not None]
    rows = [(model, *_cells(usage, costs[model])) for model, usage in used.items()]
    if len(rows) > 1:
        rows.append(("all", *_cells(whole, sum(known) if len(known) == len(costs) else None)))
    notes = ["as the server reported them, for the answers on disk, of all sessions, with noise repeats and paraphrases"]
    if known:
        notes.append("cost: by engine.endpoint.prices, in their currency")
    if settings.budget_tokens is not None:
        spent = whole.input + whole.output
        notes.append(f"engine.endpoint.budget_tokens: {spent:,} of {settings.budget_tokens:,} used, {spent / settings.budget_tokens:.0%}")
    if settings.budget_money is not None and len(known) == len(costs):
        most, money = settings.budget_money, sum(known)
        notes.append(f"engine.endpoint.budget_money: {money:,.4f} of {most:,.2f} used, {money / most:.0%}")
    return Table("What the API was asked for", "model", ("prompt tokens", "output tokens", "cost"), tuple(rows), tuple(notes))


def _cells(usage: Usage, cost: float | None) -> tuple[str, str, str]:
    return f"{usage.input:,}", f"{usage.output:,}", "-" if cost is None else f"{cost:,.4f}"


def _cost(settings: EndpointConfig, model: str, usage: Usage) -> float | None:
    """None where the configuration has no price of the model."""
    price = settings.prices.get(model)
    return None if price is None else (usage.input * price.input + usage.output * price.output) / 1e6
