"""What the engines of a run were: hardware, precision, and how often each was started and swapped. From the events alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from wdct_dist.report.layout import Table


def engines_table(events: Sequence[Mapping[str, Any]]) -> Table | None:
    """One row for each kind of engine, with how many there were; `events` as `read_events` returns them. None where none started."""
    kinds: dict[int, tuple[str, ...]] = {}
    starts: Counter[tuple[str, ...]] = Counter()
    swaps: Counter[tuple[str, ...]] = Counter()
    for event in events:
        if event["event"] == "engine started":
            kind = (str(event.get("hardware") or "not told"), str(event.get("dtype") or "-"), str(event.get("vllm") or "-"))
            kinds[event["engine"]] = kind
            starts[kind] += 1
        elif event["event"] == "engine swapped" and event["engine"] in kinds:
            swaps[kinds[event["engine"]]] += 1
    if not starts:
        return None
    places = Counter(kinds.values())
    rows = tuple((*kind, f"{places[kind]:,}", f"{count:,}", f"{swaps[kind]:,}") for kind, count in starts.items())
    notes = ("engines: places whose latest engine was such a one",)
    return Table("Engines", "hardware", ("precision", "vLLM", "engines", "starts", "swaps"), rows, notes)
