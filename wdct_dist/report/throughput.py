"""How fast each checkpoint was evaluated, and what its prompts and replies came to in tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wdct_dist.report.layout import Table
from wdct_dist.report.standing import Standing


@dataclass(slots=True)
class _Tokens:
    prompt: int = 0
    cached: int = 0
    output: int = 0


def throughput_table(standing: Mapping[str, Sequence[Standing]], events: Sequence[Mapping[str, Any]]) -> Table | None:
    """One row for each checkpoint and variant that has prompts; `standing` as `standings` returns it. None where there is none."""
    tokens: dict[tuple[str, str], _Tokens] = {}
    # by shard: a unit that was done twice counts once
    for event in {event["shard"]: event for event in events if event["event"] == "unit done"}.values():
        sums = tokens.setdefault((event["checkpoint"], event["variant"]), _Tokens())
        sums.prompt += event["prompt_tokens"]
        sums.cached += event["cached_tokens"]
        sums.output += event["output_tokens"]
    cells = []
    for checkpoint_id, by_variant in standing.items():
        for one in by_variant:
            sums = tokens.get((checkpoint_id, one.variant), _Tokens())
            cells.append(
                (
                    f"{checkpoint_id}, {one.variant}",
                    f"{one.done:,} of {one.wanted:,}",
                    f"{one.errors:,}",
                    "-" if one.prompts_per_s is None else f"{one.prompts_per_s:,.1f}",
                    f"{sums.prompt:,}",
                    f"{sums.cached / sums.prompt:.0%}" if sums.prompt else "-",
                    f"{sums.output:,}",
                )
            )
    if not cells:
        return None
    notes = (
        "prompts/s: from the first unit given to the last one done, in the last session that did any",
        "tokens: of the units that the events tell of; cached: prompt tokens that were in the engine's prefix cache",
    )
    columns = ("prompts", "errors", "prompts/s", "prompt tokens", "cached", "output tokens")
    return Table("Throughput", "checkpoint, variant", columns, tuple(cells), notes)
