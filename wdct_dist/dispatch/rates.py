"""What runs on this machine measured: prompts a second of an engine, seconds to start one. For the forecasts of `wdct plan`."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from wdct_dist.cache import cache_root
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import Config

FEWEST_PROMPTS = 50
"""A rate from fewer prompts says little."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one engine."""

    prompts_per_s: float
    seconds_to_start: float


def remember(checkpoint: Checkpoint, config: Config, rate: Rate) -> None:
    """Keeps a measured rate; a forecast's memory is not worth failing a run for, so a cache that cannot be written is let be."""
    rates = _read() | {_key(checkpoint, config): asdict(rate)}
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        _file().write_text(json.dumps(rates, indent=1))


def recall(checkpoint: Checkpoint, config: Config) -> Rate | None:
    """The rate last measured for checkpoints of this architecture in this configuration, or None."""
    found = _read().get(_key(checkpoint, config))
    return Rate(**found) if found else None


def _key(checkpoint: Checkpoint, config: Config) -> str:
    return f"{checkpoint.signature}|{config.engine.kind.value}|{config.engine.dtype.value}|{','.join(sorted(config.variants))}"


def _file() -> Path:
    return cache_root() / "rates.json"


def _read() -> dict[str, dict[str, float]]:
    try:
        rates: dict[str, dict[str, float]] = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return rates
