"""What an evaluation will be, before it starts: `wdct plan`. Reads files, starts nothing, touches no GPU.

Tokens are counted with each checkpoint's own tokenizer on a sample of prompts. Times come from what earlier runs on this machine
measured; where there is no such run, no time is invented. The schedule is that of the scheduler itself, run on paper.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import Config, EngineKind
from wdct_dist.dispatch.plan import Unit, pending_units
from wdct_dist.dispatch.rates import expected_costs, recall
from wdct_dist.dispatch.scheduler import Scheduler
from wdct_dist.dispatch.simulation import Estimated, Schedule, simulate
from wdct_dist.items.selection import select_items
from wdct_dist.pipeline import different, find_checkpoints
from wdct_dist.prompts.build import SkipTally, build_prompts
from wdct_dist.prompts.types import Prompt
from wdct_dist.tables.prompts_file import PromptIndex, PromptTally
from wdct_dist.tables.run_dir import read_provenance, usable_run
from wdct_dist.tables.shards import parse_name

SAMPLE = 200
"""Prompts whose tokens are counted; they stand for the rest."""

TEMPLATE_TOKENS = 12
"""Tokens that a chat template adds to a message, roughly: role marks and line ends."""


@dataclass(frozen=True, slots=True)
class CheckpointForecast:
    """One checkpoint's share of the work."""

    checkpoint: Checkpoint
    tokens: int | None
    """Prompt tokens, estimated; None without a tokenizer."""
    seconds: float | None
    """What is left of it on one engine, from measured rates; 0 where nothing is left, None where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What the plan comes to."""

    config: Config
    num_items: int
    dropped: tuple[str, ...]
    index: PromptIndex
    num_shards: int
    num_done: int
    """Rows that the run directory holds already."""
    checkpoints: tuple[CheckpointForecast, ...]
    broken: dict[str, str]
    left_out: tuple[str, ...]
    """Sentences on items that a variant cannot ask."""
    schedule: Schedule
    """What the scheduler would do with what is left, on `num_engines` engines; its times mean nothing where `timed` is false."""
    num_engines: int
    timed: bool
    """Every checkpoint with something left was measured here, so that the schedule's times are estimates."""

    @property
    def num_prompts(self) -> int:
        """Rows of the answers table: every prompt, checkpoint and trial."""
        return self.index.num_prompts * self.config.trials * len(self.checkpoints)


def forecast(config: Config) -> Forecast:
    """Counts what `evaluate` would do with the same configuration: the plan, and what of it the run directory has already."""
    found, broken = find_checkpoints(config)
    unique = different(found)
    store = usable_run(config)
    items = select_items(config.data)
    tally = PromptTally()
    skipped = SkipTally()
    stream = tally.watch(build_prompts(items, config, skipped=skipped))
    sample = list(islice(stream, SAMPLE))
    for _ in stream:
        pass
    index = tally.index()
    # the run's shards are prompts of the plan only where its prompts are the plan's
    same = read_provenance(store).get("prompts", {}).get("digest") == index.digest
    completed = [key for name in store.names("answers") if (key := parse_name(name)) is not None] if same else []
    size = config.dispatch.shard_size
    left = Counter[str]()
    pending = pending_units(unique, index, config.trials, size, completed)
    for unit in pending:
        left[unit.digest] += unit.num_prompts
    num_engines = max(1, min(config.dispatch.num_engines or 1, len(pending)))
    return Forecast(
        config,
        items.num_items,
        items.dropped,
        index,
        len(pending_units(unique, index, config.trials, size, ())),
        index.num_prompts * config.trials * len(unique) - left.total(),
        tuple(
            _of_checkpoint(checkpoint, config, sample, index.num_prompts * config.trials, left[checkpoint.digest]) for checkpoint in unique
        ),
        broken,
        tuple(skipped.lines()),
        _schedule(unique, config, index, pending, num_engines),
        num_engines,
        all(recall(one, config) is not None for one in unique if left[one.digest]),
    )


def forecast_text(plan: Forecast) -> str:
    """The forecast as lines for a person."""
    lines = [f"{plan.num_items:,} items" + (f", {len(plan.dropped)} dropped" if plan.dropped else "")]
    lines += [f"variant {name}: {count:,} prompts" for name, count in plan.index.num_by_variant.items()]
    lines += plan.left_out
    lines.append(
        f"{plan.num_prompts:,} prompts over {len(plan.checkpoints)} checkpoint(s) and {plan.config.trials} trial(s), "
        f"in {plan.num_shards:,} shards of up to {plan.config.dispatch.shard_size}"
    )
    if plan.num_done:
        lines.append(f"{plan.num_done:,} of them are done, {plan.num_prompts - plan.num_done:,} are left")
    for part in plan.checkpoints:
        checkpoint = part.checkpoint
        size = f", {checkpoint.size_bytes / 2**20:,.0f} MiB" if checkpoint.size_bytes else ""
        tokens = f", about {part.tokens:,} tokens" if part.tokens is not None else ""
        time = ", time unknown: none measured here yet"
        if part.seconds is not None:
            time = f", about {part.seconds:,.0f} s on one engine" if part.seconds else ", nothing left to do"
        lines.append(
            f"checkpoint {checkpoint.checkpoint_id}: {checkpoint.architecture}{size}{tokens}{time} (digest {checkpoint.digest[:12]})"
        )
    lines += schedule_lines(plan)
    for name, reason in plan.broken.items():
        lines.append(f"checkpoint {name} cannot be evaluated: {reason}")
    lines.append(f"run directory: {plan.config.run_dir}")
    return "\n".join(lines)


def schedule_lines(plan: Forecast) -> list[str]:
    """Which checkpoints on how many engines, from when to when; without times where they are not known."""
    courses = plan.schedule.courses.values()
    if not courses:
        return []
    where = f"{plan.num_engines} engine(s)" + ("" if plan.config.dispatch.num_engines else " (dispatch.num_engines is empty)")
    if not plan.timed:
        shares = ", ".join(f"{one.checkpoint_id} on {len(one.engines)}" for one in courses)
        return [f"schedule on {where}, by sizes and tokens (no times: not all of it was measured here): {shares}"]
    return [
        f"schedule on {where}: about {plan.schedule.makespan_s:,.0f} s, with {plan.schedule.num_starts} start(s) and "
        f"{plan.schedule.num_swaps} swap(s)",
        *(f"  {one.checkpoint_id}: on {len(one.engines)} engine(s), from {one.began_s:,.0f} s to {one.ended_s:,.0f} s" for one in courses),
    ]


def _schedule(checkpoints: Sequence[Checkpoint], config: Config, index: PromptIndex, pending: Sequence[Unit], num_engines: int) -> Schedule:
    scheduler = Scheduler(pending, units_in_flight=config.dispatch.units_in_flight, costs=expected_costs(checkpoints, config, index))
    return simulate(scheduler, num_engines, Estimated(expected_costs(checkpoints, config, index)))


def _of_checkpoint(checkpoint: Checkpoint, config: Config, sample: Sequence[Prompt], rows: int, left: int) -> CheckpointForecast:
    mean = _mean_tokens(checkpoint.directory, sample) if config.engine.kind is EngineKind.vllm else None
    rate = recall(checkpoint, config)
    seconds = 0.0 if left == 0 else rate.seconds_to_start + left / rate.prompts_per_s if rate is not None else None
    return CheckpointForecast(checkpoint, round(mean * rows) if mean is not None else None, seconds)


def _mean_tokens(directory: Path, sample: Sequence[Prompt]) -> float | None:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return None
    file = directory / "tokenizer.json"
    if not sample or not file.is_file():
        return None
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_padding()  # else each prompt counts as many tokens as the longest one
    tokenizer.no_truncation()
    texts = [message.content for prompt in sample for message in prompt.messages]
    counted = sum(len(encoding.ids) + TEMPLATE_TOKENS for encoding in tokenizer.encode_batch(texts, add_special_tokens=False))
    return counted / len(sample)
