"""How fast and how much an API may be asked: pacing, pauses, a budget. Pure: no clock, no network."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from wdct_dist.config.schema import EndpointConfig
from wdct_dist.errors import ConfigError

LONGEST_PAUSE_S = 60.0
"""Of our own choosing; what a server asks for by `Retry-After` may be longer."""

TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
"""Statuses after which the same request may be answered."""


class Pace:
    """Spaces amounts (requests, or tokens) evenly at a rate a minute: no minute gets more than the rate and one amount."""

    def __init__(self, per_minute: float) -> None:
        self._seconds_each = 60.0 / per_minute
        self._free_at = 0.0

    def take(self, amount: float, now: float) -> float:
        """Takes its turn for `amount`; returns the seconds to wait until then."""
        start = max(self._free_at, now)
        self._free_at = start + amount * self._seconds_each
        return start - now

    def give_back(self, amount: float) -> None:
        """Part of what was taken was not used (negative: more was)."""
        self._free_at -= amount * self._seconds_each


def pause_s(attempt: int, first_s: float, generator: random.Random) -> float:
    """Seconds before attempt `attempt` + 1: doubling from `first_s` (attempt 1) up to a minute, half of it at random.

    The random half keeps requests that failed together from coming back together.
    """
    whole = min(LONGEST_PAUSE_S, first_s * 2.0 ** (attempt - 1))
    return whole * (0.5 + 0.5 * generator.random())


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date. None: it does not say."""
    with_ms, plain = headers.get("retry-after-ms", ""), headers.get("Retry-After", "").strip()
    for text, unit in ((with_ms, 1000.0), (plain, 1.0)):
        try:
            seconds = float(text) / unit
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        at = parsedate_to_datetime(plain)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens."""

    input: int = 0
    output: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.input + other.input, self.output + other.output)


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of a budget: tokens, or money by the prices of a token."""

    name: str
    most: float
    input_price: float = 1.0
    output_price: float = 1.0

    def cost(self, usage: Usage) -> float:
        return usage.input * self.input_price + usage.output * self.output_price


def budget_limits(settings: EndpointConfig, model: str) -> list[Limit]:
    """The limits of the configuration, at the prices of a model. Raises `ConfigError` where it has no price."""
    limits = []
    if settings.budget_tokens is not None:
        limits.append(Limit("engine.endpoint.budget_tokens", settings.budget_tokens))
    if settings.budget_money is not None:
        price = settings.prices.get(model)
        if price is None:
            raise ConfigError(f"engine.endpoint.prices: there is no price of {model}, which the run asks or has asked; give it.")
        limits.append(Limit("engine.endpoint.budget_money", settings.budget_money, price.input / 1e6, price.output / 1e6))
    return limits


def spent_before(settings: EndpointConfig, used: Mapping[str, Usage]) -> dict[str, float]:
    """What was used, by model, as parts of the limits, by the limit's name."""
    spent: dict[str, float] = {}
    for model, usage in used.items():
        for limit in budget_limits(settings, model):
            spent[limit.name] = spent.get(limit.name, 0.0) + limit.cost(usage)
    return spent


class Budget:
    """What may be spent. A request is let go only where its worst case still fits, so that the limit holds whatever is under way.

    Exact in what the server reports; the worst case of a prompt is an estimate (`TokenEstimate`) until its answer has come.
    """

    def __init__(self, limits: Iterable[Limit], spent: Mapping[str, float]) -> None:
        """`spent`: what earlier sessions and other models have used, by the limit's name."""
        self._limits = tuple(limits)
        self._left = {limit.name: limit.most - spent.get(limit.name, 0.0) for limit in self._limits}
        self._held = dict.fromkeys(self._left, 0.0)

    def reserve(self, worst: Usage) -> bool:
        """Holds the worst case of a request; False: it does not fit now."""
        if any(limit.cost(worst) + self._held[limit.name] > self._left[limit.name] for limit in self._limits):
            return False
        for limit in self._limits:
            self._held[limit.name] += limit.cost(worst)
        return True

    def settle(self, worst: Usage, used: Usage) -> None:
        """What was held is given free, what was used is spent."""
        for limit in self._limits:
            self._held[limit.name] -= limit.cost(worst)
            self._left[limit.name] -= limit.cost(used)

    def exceeded_by(self, worst: Usage) -> str | None:
        """The limit that the request would exceed even if nothing else were under way, or None."""
        return next((limit.name for limit in self._limits if limit.cost(worst) > self._left[limit.name]), None)


class TokenEstimate:
    """Tokens of a prompt by its characters: a quarter more than by the largest ratio that the server has reported, and a few."""

    MARGIN = 1.25
    FEW = 8

    def __init__(self) -> None:
        self._per_character: float | None = None

    def tokens(self, num_characters: int) -> int:
        # half a token a character, until the server has said: more than English needs, about what Chinese does
        ratio = 0.5 if self._per_character is None else self._per_character
        return self.FEW + math.ceil(num_characters * ratio * self.MARGIN)

    def learn(self, num_characters: int, num_tokens: int) -> None:
        if num_characters:
            self._per_character = max(num_tokens / num_characters, self._per_character or 0.0)
