"""What a run does, as metrics that every Ray node exports for Prometheus (by Ray with the prefix `ray_`, counters with `_total`).

Fed by the journal's events, so that the log, the status and the dashboard (cluster/grafana.json) tell the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray.util.metrics import Counter, Gauge

COUNTED = {
    "rows": ("wdct_prompts", "Prompts that have a row"),
    "errors": ("wdct_errors", "Prompts whose row has an error instead of an answer"),
    "prompt_tokens": ("wdct_prompt_tokens", "Tokens of prompts"),
    "cached_tokens": ("wdct_cached_tokens", "Tokens of prompts that the prefix cache gave"),
    "output_tokens": ("wdct_output_tokens", "Tokens generated"),
    "seconds": ("wdct_unit_seconds", "Seconds that units took, from their prompts to their shard"),
}
"""By the field of `unit done` that is added up."""


class RayMetrics:
    """Watches a journal."""

    def __init__(self, run: str) -> None:
        """`run`: its name, a label of every metric."""
        unit = ("run", "checkpoint", "variant")
        self._run = run
        self._units = Counter("wdct_units", "Units done", unit)
        self._counted = {field: Counter(name, meaning, unit) for field, (name, meaning) in COUNTED.items()}
        self._events = Counter("wdct_events", "Everything else that happened: starts, swaps, losses, failures", ("run", "event"))
        self._engines = Gauge("wdct_engines", "Engines in the pool", ("run",))
        self._num_engines = 0

    def __call__(self, event: str, facts: Mapping[str, Any]) -> None:
        if event == "pool":
            self._num_engines = facts["engines"]
        # with every event, since Ray exports a gauge only in the interval in which it was set (2.60, measured)
        self._engines.set(self._num_engines, {"run": self._run})
        if event != "unit done":
            self._events.inc(1, {"run": self._run, "event": event})
            return
        tags = {"run": self._run, "checkpoint": facts["checkpoint"], "variant": facts["variant"]}
        self._units.inc(1, tags)
        for field, counter in self._counted.items():
            if facts[field]:  # Ray refuses to add nothing
                counter.inc(facts[field], tags)


def run_name(run_dir: str) -> str:
    """The last part of a run's path or URI, without what a URI may hold of addresses and keys."""
    return run_dir.partition("?")[0].rstrip("/").rpartition("/")[2]
