"""What runs on this machine measured: prompts a second of an engine, seconds to load a checkpoint. Later runs expect the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from wdct_dist.cache import cache_root, put_in_place
from wdct_dist.checkpoints.file_lock import locked
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.schema import Config, Reuse
from wdct_dist.dispatch.costs import Costs, Profile
from wdct_dist.tables.prompts_file import PromptIndex

FEWEST_PROMPTS = 50
"""A rate from fewer prompts says little."""

CHARS_PER_TOKEN = 4.0
"""Roughly, of English text. It weighs variants against each other until they are measured."""

REPLY_TOKEN = 2.5
"""What a generated token takes, in prompt tokens (measured on a CPU: ten new tokens against one, behind 121; 2.4)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one engine."""

    prompts_per_s: float
    seconds_to_start: float
    seconds_to_swap: float | None = None


def remember(checkpoint: Checkpoint, config: Config, rate: Rate) -> None:
    """Keeps a measured rate beside those of other runs, which may do the same now.

    A forecast's memory is not worth failing a run for, so a cache that cannot be written is let be.
    """
    file = _file()
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with locked(file.with_suffix(".lock")):
            put_in_place(file, json.dumps(_read() | {_key(checkpoint, config): asdict(rate)}, indent=1))


def recall(checkpoint: Checkpoint, config: Config) -> Rate | None:
    """The rate last measured for checkpoints of this architecture in this configuration, or None."""
    found = _read().get(_key(checkpoint, config))
    return Rate(**found) if found else None


def expected_costs(checkpoints: Sequence[Checkpoint], config: Config, index: PromptIndex) -> Costs:
    """What is expected of a run: by sizes and tokens, and in seconds by what earlier runs measured."""
    tokens = tokens_by_variant(config, index)
    can_swap = config.dispatch.reuse is Reuse.swap
    costs = Costs({one.checkpoint_id: Profile(one.signature, one.size_bytes, tokens) for one in checkpoints}, can_swap=can_swap)
    total = sum(tokens[name] * count for name, count in index.num_by_variant.items())
    for checkpoint in checkpoints:
        rate = recall(checkpoint, config)
        if rate is None:
            continue
        seconds = index.num_prompts / rate.prompts_per_s
        for name in tokens:
            # counts like the fewest prompts that say something: what this run measures soon outweighs it
            costs.prompts_took(checkpoint.checkpoint_id, name, FEWEST_PROMPTS, FEWEST_PROMPTS * seconds * tokens[name] / total)
        costs.load_took(checkpoint.checkpoint_id, rate.seconds_to_start, swapped=False)
        if rate.seconds_to_swap is not None:
            costs.load_took(checkpoint.checkpoint_id, rate.seconds_to_swap, swapped=True)
    return costs


def remember_costs(checkpoints: Sequence[Checkpoint], config: Config, costs: Costs) -> None:
    """Keeps what a run measured of each checkpoint, where it was enough to tell."""
    for checkpoint in checkpoints:
        name = checkpoint.checkpoint_id
        (num_prompts, seconds), start_s = costs.measured_here(name), costs.load_s(name)
        # an engine that lived on from an earlier run was not started; one that adapters share says nothing of others
        if not costs.shares(name) and num_prompts >= FEWEST_PROMPTS and seconds > 0 and start_s > 0:
            remember(checkpoint, config, Rate(num_prompts / seconds, start_s, costs.measured_swap_s(name)))


def tokens_by_variant(config: Config, index: PromptIndex) -> dict[str, float]:
    """Prompt tokens that a prompt and its reply are worth, on average; estimated from characters and limits."""
    reply = config.prompt.reply_tokens or 1
    return {
        name: index.num_chars.get(name, 0) / count / CHARS_PER_TOKEN
        + REPLY_TOKEN * (reply + config.sampling.max_new_tokens * index.num_reasoned.get(name, 0) / count)
        for name, count in index.num_by_variant.items()
    }


def _key(checkpoint: Checkpoint, config: Config) -> str:
    # what a prompt takes, beside its model: a rate of short replies would have an engine that gives long ones end as one that hangs
    lengths = f"{config.prompt.reply_tokens}|{config.sampling.max_new_tokens}|{config.dispatch.tensor_parallel_size}"
    return f"{checkpoint.signature}|{config.engine.kind.value}|{config.engine.dtype.value}|{','.join(sorted(config.variants))}|{lengths}"


def _file() -> Path:
    return cache_root() / "rates.json"


def _read() -> dict[str, dict[str, float]]:
    try:
        rates: dict[str, dict[str, float]] = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return rates
