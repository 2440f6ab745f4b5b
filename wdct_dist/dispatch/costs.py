"""What loading and evaluating cost: estimated from sizes and tokens, corrected by what the run measures. Pure.

Every cost is a weight × a ratio. The weight comes from what is known beforehand: an evaluation weighs its tokens × the bytes of the
weights that each of them passes through, loading weighs the bytes that are read. The ratio, seconds for a weight, is measured: of the
same kind of work where there is any, else of all work. Before the first measurement there are weights and no seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wdct_dist.dispatch.plan import Unit

OVERHEAD_BYTES = 2**29
"""What an engine does for a token beside passing it through the weights, as if it were weights: a tenth of the size is not ten times
the speed. Matters only until a checkpoint is measured."""

START_BYTES = 10 * 2**30
"""What starting a process costs beside reading the weights, as bytes read: seconds, against tenths of one for a small model's weights."""

SWAP_BYTES = 2**28
"""The same for a swap: resetting the cache, proving the swap."""

PATIENCE = 20
"""A unit may take this many times as long as was measured for its like before its engine counts as hung."""

SHORTEST_PATIENCE_S = 300.0

UNMEASURED_PATIENCE_S = 3600.0
"""Where nothing was measured for the checkpoint and variant; a unit that is killed wrongly comes back in smaller parts."""


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a checkpoint before it is loaded."""

    signature: str = ""
    """Checkpoints of one signature can be swapped for each other in a live engine."""
    size_bytes: int = 0
    tokens: Mapping[str, float] | None = None
    """Tokens of a prompt and its reply, on average, by variant; None where they are not known: every prompt weighs the same."""


@dataclass(slots=True)
class _Ratio:
    """Seconds for a weight, over all that was measured."""

    weight: float = 0.0
    seconds: float = 0.0

    def add(self, weight: float, seconds: float) -> None:
        self.weight += weight
        self.seconds += seconds

    def of(self, weight: float) -> float | None:
        return weight * self.seconds / self.weight if self.weight > 0 else None


class Costs:
    """Estimates that learn. Seconds are engine time: of one engine, with nothing else on it."""

    def __init__(self, profiles: Mapping[str, Profile] | None = None, *, can_swap: bool = False) -> None:
        """`profiles` by checkpoint id; `can_swap`: a live engine takes another checkpoint of its signature without a restart."""
        self._profiles = dict(profiles or {})
        self._can_swap = can_swap
        self._groups: dict[str, str] = {}
        """Of checkpoints that share an engine with others, with whom."""
        self._by_variant: dict[tuple[str, str], _Ratio] = {}
        self._by_checkpoint: dict[str, _Ratio] = {}
        self._evaluation = _Ratio()
        self._here: dict[str, _Ratio] = {}
        self._starts: dict[str, _Ratio] = {}
        self._start = _Ratio()
        self._swaps: dict[str, _Ratio] = {}
        self._swap = _Ratio()

    @property
    def measured(self) -> bool:
        """Whether evaluation costs are seconds; before, they are weights that can only be compared with each other."""
        return self._evaluation.weight > 0

    def prompt_s(self, checkpoint_id: str, variant: str) -> float:
        """Seconds that a prompt takes (or its weight, see `measured`)."""
        if (like := self._by_variant.get((checkpoint_id, variant))) is not None and (seconds := like.of(1.0)) is not None:
            return seconds
        weight = self._weight(checkpoint_id, variant)
        own = self._by_checkpoint.get(checkpoint_id)
        seconds = own.of(weight) if own is not None else None
        if seconds is None:
            seconds = self._evaluation.of(weight)
        return weight if seconds is None else seconds

    def unit_s(self, unit: Unit) -> float:
        """Seconds that a unit takes (or its weight, see `measured`)."""
        return unit.num_prompts * self.prompt_s(unit.checkpoint_id, unit.variant)

    def swaps(self, checkpoint_id: str, after: str | None) -> bool:
        """Whether an engine that has `after` can take the checkpoint without a restart."""
        return self._can_swap and after is not None and self._loads_as(after) == self._loads_as(checkpoint_id)

    def share(self, checkpoint_id: str, group: str | None) -> None:
        """The checkpoint is one of a group that an engine has beside each other; None: it is not, or no longer."""
        if group is None:
            self._groups.pop(checkpoint_id, None)
        else:
            self._groups[checkpoint_id] = group

    def shares(self, checkpoint_id: str, other: str | None = None) -> bool:
        """Whether the checkpoint is of a group; of that of `other`, where one is given."""
        group = self._groups.get(checkpoint_id)
        return group is not None and (other is None or group == self._groups.get(other))

    def _loads_as(self, checkpoint_id: str) -> str:
        """The same for checkpoints that take turns in a live engine, and whose loads take alike."""
        return self._groups.get(checkpoint_id) or self._profile(checkpoint_id).signature

    def load_s(self, checkpoint_id: str, after: str | None = None) -> float:
        """Seconds until an engine that has `after` (None: no engine yet) is ready with the checkpoint; 0 where none was measured."""
        profile = self._profile(checkpoint_id)
        start_weight = START_BYTES + profile.size_bytes
        if not self.swaps(checkpoint_id, after):
            return _first_known(self._starts.get(self._loads_as(checkpoint_id)), self._start, weight=start_weight)
        swap_weight = SWAP_BYTES + profile.size_bytes
        swap_s = _first_known(self._swaps.get(self._loads_as(checkpoint_id)), self._swap, weight=swap_weight)
        return swap_s or _first_known(self._start, weight=swap_weight)

    def unit_took(self, unit: Unit, seconds: float) -> None:
        """An engine was busy with the unit for so long (not counting the time in which it waited behind another one)."""
        self._here.setdefault(unit.checkpoint_id, _Ratio()).add(unit.num_prompts, seconds)
        self.prompts_took(unit.checkpoint_id, unit.variant, unit.num_prompts, seconds)

    def prompts_took(self, checkpoint_id: str, variant: str, num_prompts: int, seconds: float) -> None:
        """The same for prompts that are no unit of this run."""
        weight = num_prompts * self._weight(checkpoint_id, variant)
        self._by_variant.setdefault((checkpoint_id, variant), _Ratio()).add(num_prompts, seconds)
        self._by_checkpoint.setdefault(checkpoint_id, _Ratio()).add(weight, seconds)
        self._evaluation.add(weight, seconds)

    def load_took(self, checkpoint_id: str, seconds: float, *, swapped: bool) -> None:
        """A checkpoint was ready after so long."""
        profile = self._profile(checkpoint_id)
        weight = profile.size_bytes + (SWAP_BYTES if swapped else START_BYTES)
        every, like = (self._swap, self._swaps) if swapped else (self._start, self._starts)
        every.add(weight, seconds)
        like.setdefault(self._loads_as(checkpoint_id), _Ratio()).add(weight, seconds)

    def measured_here(self, checkpoint_id: str) -> tuple[int, float]:
        """Prompts of this run that engines have done, and the engine time that they took."""
        here = self._here.get(checkpoint_id, _Ratio())
        return round(here.weight), here.seconds

    def measured_swap_s(self, checkpoint_id: str) -> float | None:
        """What a swap to checkpoints of this signature takes, or None where none was measured."""
        profile = self._profile(checkpoint_id)
        like = self._swaps.get(self._loads_as(checkpoint_id))
        return None if like is None else like.of(SWAP_BYTES + profile.size_bytes)

    def patience_s(self, units: Iterable[Unit]) -> float:
        """How long an engine that has these units may go without finishing one."""
        units = list(units)
        patience = max(SHORTEST_PATIENCE_S, PATIENCE * sum(map(self.unit_s, units))) if self.measured else UNMEASURED_PATIENCE_S
        if any((unit.checkpoint_id, unit.variant) not in self._by_variant for unit in units):
            return max(UNMEASURED_PATIENCE_S, patience)
        return patience

    def _profile(self, checkpoint_id: str) -> Profile:
        return self._profiles.get(checkpoint_id) or Profile(signature=checkpoint_id)

    def _weight(self, checkpoint_id: str, variant: str) -> float:
        profile = self._profile(checkpoint_id)
        tokens = profile.tokens.get(variant, 1.0) if profile.tokens is not None else 1.0
        return tokens * (OVERHEAD_BYTES + profile.size_bytes)


def _first_known(*ratios: _Ratio | None, weight: float) -> float:
    for ratio in ratios:
        if ratio is not None and (seconds := ratio.of(weight)) is not None:
            return seconds
    return 0.0
