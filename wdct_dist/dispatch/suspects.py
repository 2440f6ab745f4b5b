"""A unit whose engine died is suspect: which prompt was it? Pure.

A unit that was in flight when its engine died is run again alone, so that the next death is surely its own. A suspect that kills again
is split; a single prompt that does so is recorded as an error, and everything else has its answer.
"""

from __future__ import annotations

from collections import deque

from wdct_dist.dispatch.plan import Unit

SPLIT_PARTS = 8
"""Parts that a suspect is split into: 256 prompts are down to the one at fault after three deaths."""


class Suspects:
    """Counts the deaths that were surely a unit's own."""

    def __init__(self, max_attempts: int) -> None:
        self.poisonous: deque[tuple[Unit, str]] = deque()
        """Prompts that no engine survives, each a unit of its own, with the error to record; whoever records one takes it out."""
        self._max_attempts = max_attempts
        self._attempts: dict[Unit, int] = {}

    def __contains__(self, unit: Unit) -> bool:
        """Whether the unit, or one that it is a part of, has killed alone."""
        return unit in self._attempts

    def forget(self, unit: Unit) -> bool:
        """The unit is done; returns whether by a record, which says nothing of how long it takes."""
        return self._attempts.pop(unit, 0) >= self._max_attempts

    def after_death(self, unit: Unit, why: str, *, alone: bool) -> list[Unit]:
        """What is to be run alone now that the unit's engine has died: the unit, its parts, or nothing and one more of `poisonous`.

        `alone`: nothing else was in flight.
        """
        if alone:
            self._attempts[unit] = self._attempts.get(unit, 0) + 1
        attempts = self._attempts.get(unit, 0)
        if attempts < self._max_attempts:
            return [unit]
        if unit.num_prompts == 1:
            self.poisonous.append((unit, f"{why}; the prompt was alone in the engine, {attempts} times"))
            return []
        parts = unit.split(SPLIT_PARTS)
        for part in parts:
            # the parts come from a unit that killed alone: one more death is enough to split further
            self._attempts[part] = self._max_attempts - 1 if part.num_prompts > 1 else 0
        return parts
