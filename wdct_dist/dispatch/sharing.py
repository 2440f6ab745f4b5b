"""Which adapters of a run share an engine, and which are merged, each for what reason. Pure but for the journal that is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from wdct_dist.config.schema import Adapters, Config, EngineKind, Reuse
from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.worker import WorkerSpec
from wdct_dist.engine.protocol import Sharing


def share_adapters(specs: dict[str, WorkerSpec], costs: Costs, journal: Journal, *, on_gpu: bool) -> None:
    """Has adapters of one base share an engine where `engine.adapters` wants it, by changing their `specs` and `costs`.

    Counted are all of the run's, those that are done too, so that a resumed run goes on as it began.
    """
    adapters = {name: spec for name, spec in specs.items() if spec.checkpoint.base is not None}
    groups: dict[str, list[str]] = {}
    merged: dict[str, list[str]] = {}
    for name, spec in adapters.items():
        base, config = spec.checkpoint.base, spec.config
        assert base is not None
        because = spec.checkpoint.merged_because or _why_none_shares(config, on_gpu=on_gpu)
        if because is None:
            groups.setdefault(base.digest, []).append(name)
        else:
            merged.setdefault(because, []).append(name)
    for base_digest, names in groups.items():
        config = adapters[names[0]].config
        if len(names) == 1 and config.engine.adapters is Adapters.auto:
            merged.setdefault("it is the only one of its base", []).extend(names)
            continue
        rank = max(adapters[name].checkpoint.adapter_rank for name in names)
        # each unit in flight may be of another adapter, and the next one is added beside them
        sharing = Sharing(base_digest, rank, config.dispatch.units_in_flight + 1)
        for name in names:
            specs[name] = replace(specs[name], sharing=sharing)
            costs.share(name, f"adapters of {base_digest}, rank {rank}")
    for because, names in merged.items():
        journal.say("adapters merged", checkpoints=names, reason=because)


def merge_instead(names: Iterable[str], why: str, specs: dict[str, WorkerSpec], costs: Costs, journal: Journal) -> None:
    """Has adapters merged that an engine did not take, or could not be started for."""
    names = list(names)
    for name in names:
        specs[name] = replace(specs[name], sharing=None)
        costs.share(name, None)
    journal.say("adapters merged", checkpoints=names, reason=why)


def sharers(sharing: Sharing, specs: dict[str, WorkerSpec]) -> list[str]:
    return [name for name, spec in specs.items() if spec.sharing == sharing]


def _why_none_shares(config: Config, *, on_gpu: bool) -> str | None:
    """Why no adapter of the run shares an engine; None where they may."""
    if config.engine.kind is not EngineKind.vllm:
        return f"engine.kind is {config.engine.kind.value}"
    if config.engine.adapters is Adapters.merge:
        return "engine.adapters is merge"
    if config.dispatch.reuse is Reuse.restart:
        return "dispatch.reuse is restart"
    if config.engine.adapters is Adapters.auto and not on_gpu:
        return "without a GPU that is faster; engine.adapters: share does not merge them all the same"
    return None
