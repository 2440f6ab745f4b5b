"""The program in a few functions: items → prompts → engines → tables → metrics → report. Read this first.

    evaluate(config)    prepare → ask → score
    rounds(config)      the same again and again, where a directory is watched

Running a model and judging it stay apart: what the model said is written once and never edited, everything else is derived from it,
in `reporting.py`.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wdct_dist import provenance
from wdct_dist.checkpoints.describe import describe_all
from wdct_dist.checkpoints.sources import endpoint_checkpoints, parse_sources, scripted_checkpoints
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.checkpoints.watch import expand, read_watches
from wdct_dist.config.schema import Config, EngineKind, Reuse
from wdct_dist.dispatch import rates
from wdct_dist.dispatch.interrupts import Interrupts
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.plan import Unit, fewest_units, pending_units
from wdct_dist.dispatch.pool import Pool, open_pool
from wdct_dist.dispatch.progress import Progress
from wdct_dist.dispatch.scheduler import Scheduler
from wdct_dist.dispatch.worker import WorkerSpec
from wdct_dist.engine.endpoint_key import api_key
from wdct_dist.errors import EXIT_COMPLETE, EXIT_INCOMPLETE, CheckpointError, EngineError, Incomplete, RunDirError, WdctError
from wdct_dist.ids import file_sha256
from wdct_dist.items.selection import ItemSelection, select_items
from wdct_dist.prompts.build import SkipTally, build_prompts
from wdct_dist.prompts.paraphrase import Paraphrases
from wdct_dist.prompts.variants.registry import find_variants
from wdct_dist.reporting import score_run
from wdct_dist.tables import items_file, manifest, prompts_file
from wdct_dist.tables.manifest import find_completed, overlapped
from wdct_dist.tables.prompts_file import PromptIndex
from wdct_dist.tables.run_dir import locked, now, open_run, read_provenance, write_config, write_provenance
from wdct_dist.tables.shards import Shard
from wdct_dist.tables.shared_directory import nonce_file
from wdct_dist.tables.storage import Store

PREPARED = (items_file.NAME, prompts_file.NAME)
"""Tables that are written before any engine starts; a resumed run has to have them as they were."""


WATCH_EVERY_S = 1.0
"""How often a watched directory is looked at: a look lists it and reads a few headers."""


@dataclass(slots=True)
class Outcome:
    """How an evaluation ended."""

    store: Store
    num_prompts: int
    num_missing: int
    num_errors: int
    failed_checkpoints: dict[str, str] = field(default_factory=dict)
    interrupted: str | None = None
    incomplete_checkpoints: frozenset[str] = frozenset()
    """Checkpoints of which answers are missing."""
    abandoned: dict[int, str] = field(default_factory=dict)
    """Places of the pool that were given up, with the reason."""

    @property
    def exit_code(self) -> int:
        # one that was stopped is not scored, also where its last unit was finished
        return EXIT_INCOMPLETE if self.num_missing or self.failed_checkpoints or self.interrupted is not None else EXIT_COMPLETE

    def sentence(self) -> str:
        """How it ended, in words."""
        done = self.num_prompts - self.num_missing
        parts = [f"{self.store.uri}: {done:,} of {self.num_prompts:,} prompts done"]
        if self.num_errors:
            parts.append(f"{self.num_errors:,} of them have an error instead of an answer (column `error`)")
        parts += [f"checkpoint {name} failed: {reason.rstrip('.')}" for name, reason in self.failed_checkpoints.items()]
        parts += [f"engine place {place} was given up: {reason.rstrip('.')}" for place, reason in self.abandoned.items()]
        if self.interrupted is not None:
            parts.append(f"stopped by {self.interrupted}")
        if self.exit_code == EXIT_INCOMPLETE:
            parts.append("what is done is safe, the same command goes on from here")
        return "; ".join(parts)


def rounds(config: Config) -> Iterator[Outcome]:
    """An evaluation; where a directory is watched, one more whenever a checkpoint has become complete there.

    Engines live on from one to the next, which is swapped in; with `dispatch.reuse: restart` they end with each. Watching ends once
    training is over and everything is evaluated, or with the first signal. Raises `CheckpointError` where it ends before there was a
    checkpoint.
    """
    watches = read_watches(config.checkpoints, Path.cwd())
    if not watches:
        yield evaluate(config)
        return
    seen: list[object] = []
    complete = True
    lives_on = config.dispatch.reuse is Reuse.swap
    with Interrupts() as interrupts, contextlib.closing(open_pool(config)) if lives_on else contextlib.nullcontext() as pool:
        while interrupts.requested is None:
            # asked before looking, so that what was written before training ended is seen
            over = all(watch.is_over for watch in watches)
            entries = expand(config.checkpoints, Path.cwd(), everything=over)
            if entries != seen or (over and not complete):
                seen = entries
                try:
                    outcome = evaluate(config, entries, pool)
                except (CheckpointError, EngineError) as error:
                    if over:
                        raise
                    complete = False  # none of them yet; the next may be whole, and start
                    print(error, file=sys.stderr)
                else:
                    complete = outcome.exit_code == EXIT_COMPLETE
                    yield outcome
                    if outcome.interrupted is not None:
                        return
            if over:
                break
            if pool is not None:
                pool.rest()
            time.sleep(WATCH_EVERY_S)
    if not seen:
        watched = ", ".join(str(watch.directory) for watch in watches)
        raise CheckpointError(f"checkpoints: no complete checkpoint appeared in {watched} while it was watched; correct the path.")


def evaluate(config: Config, entries: Sequence[object] | None = None, pool: Pool | None = None) -> Outcome:
    """Runs an evaluation, or goes on with one: what is done is found on disk, the rest is given to the engines, all is scored.

    `entries` stand for `config.checkpoints` where those are found by watching. `pool`: its engines are used and live on; without one,
    engines end with the evaluation.
    """
    families = find_variants(config)  # a variant that cannot be is named before anything is written
    if config.engine.kind is EngineKind.endpoint:
        api_key(config.engine.endpoint)  # a key that is not there is named before anything is written
    with contextlib.nullcontext(pool) if pool is not None else contextlib.closing(open_pool(config)) as engines:
        named = config if entries is None else replace(config, checkpoints=list(entries))
        # a run that was begun before may have nothing left to ask
        has_begun = Store(config.run_dir).exists(manifest.NAME)
        items = select_items(config.data)
        num_variants = sum(map(len, families))

        def begin(num_checkpoints: int) -> None:
            if not has_begun:
                units = fewest_units(num_checkpoints, items.num_items, num_variants, config.trials, config.dispatch.shard_size)
                engines.begin(units if config.augment.paraphraser is None else 1)

        checkpoints, broken = find_checkpoints(named, meanwhile=begin)
        store = open_run(config)
        with locked(store), session(store) as record:
            store.sweep()
            written = paraphrases(store, config, items, engines)
            if written is not None:
                record["paraphrases"] = written.lines()
                print(*written.lines(), sep="\n", file=sys.stderr)
            index = prepare(store, config, items, record, described(config, checkpoints, items), written)
            unique = different(checkpoints)
            outcome = ask(store, config, unique, index, engines)
            outcome.failed_checkpoints |= broken
            record["failed_checkpoints"] = outcome.failed_checkpoints
            record["sessions"][-1]["ended"] = outcome.sentence()
            if outcome.interrupted is None:
                # a checkpoint that failed has nothing to repeat, and must not keep the others from being scored
                whole = [one for one in unique if one.checkpoint_id not in outcome.failed_checkpoints]
                repeat_for_noise(store, config, whole, index, engines)
                if pool is None:
                    engines.end()
                score_run(store, config)
    return outcome


def find_checkpoints(config: Config, *, meanwhile: Callable[[int], None] | None = None) -> tuple[list[Checkpoint], dict[str, str]]:
    """The checkpoints of the configuration, and those that cannot be evaluated, by id with the reason.

    Of a watched directory those that are complete now. `meanwhile` is told how many there are at least, before what may take long (reading
    all their weights) and after it. Raises `CheckpointError` where there are none.
    """
    entries = expand(config.checkpoints, Path.cwd())
    if config.engine.kind is EngineKind.scripted:
        return scripted_checkpoints(entries), {}
    if config.engine.kind is EngineKind.endpoint:
        return endpoint_checkpoints(entries, config.engine.endpoint.base_url or ""), {}
    sources = parse_sources(entries, Path.cwd())
    if meanwhile is not None:
        meanwhile(1)
    found: list[Checkpoint] = []
    broken: dict[str, str] = {}
    described = describe_all(sources, allow_pickle=config.engine.allow_pickle, trust_remote_code=config.engine.trust_remote_code)
    for source, one in zip(sources, described, strict=True):
        if isinstance(one, Checkpoint):
            found.append(one)
        else:
            broken[source.checkpoint_id] = str(one)
    if not found:
        raise CheckpointError("\n".join(f"checkpoint {name}: {reason}" for name, reason in broken.items()))
    for name, reason in broken.items():
        print(f"checkpoint {name} is left out: {reason}", file=sys.stderr)
    if meanwhile is not None:
        meanwhile(len({one.digest for one in found}))
    return found, broken


def different(checkpoints: Sequence[Checkpoint]) -> list[Checkpoint]:
    """The checkpoints without those that are another one under a second name: evaluated once, reported under every name."""
    first: dict[str, Checkpoint] = {}
    for checkpoint in checkpoints:
        same = first.setdefault(checkpoint.digest, checkpoint)
        if same is not checkpoint:
            print(
                f"checkpoint {checkpoint.checkpoint_id} is {same.checkpoint_id} under another name (digest {same.digest[:12]}): "
                "it is evaluated once and reported under both names.",
                file=sys.stderr,
            )
    return list(first.values())


def paraphrases(store: Store, config: Config, items: ItemSelection, pool: Pool) -> Paraphrases | None:
    """The paraphrases of `augment.paraphraser`, written by it in a first stage where the run does not have them yet."""
    if config.augment.paraphraser is None:
        return None
    from wdct_dist.paraphrasing import write_paraphrases

    def ask_writer(part: Store, index: PromptIndex) -> None:
        settings = replace(config, checkpoints=[config.augment.paraphraser], trials=1)
        outcome = ask(part, settings, find_checkpoints(settings)[0], index, pool)
        if outcome.exit_code != EXIT_COMPLETE:
            raise Incomplete(f"paraphrases: {outcome.sentence()}")

    return write_paraphrases(store, config, items, ask_writer)


def prepare(
    store: Store,
    config: Config,
    items: ItemSelection,
    record: dict[str, Any],
    said: dict[str, Any],
    written: Paraphrases | None = None,
) -> PromptIndex:
    """Writes the configuration, the items and the prompts; where they are there already, proves that they are the same.

    `said` comes into the record, provenance.json, once nothing is refused.
    """
    before = record.get("prompts")
    if before is not None:
        index = prompts_file.index_of(build_prompts(items, config, written=written))
        if index.digest != before["digest"]:
            raise RunDirError(
                f"run_dir: {config.run_dir} holds a run of other prompts: the items or the templates have changed since it began. "
                "Restore them to go on, or give another run_dir to start anew."
            )
        record |= said
        if all(store.exists(name) and store.sha256(name) == before["sha256"][name] for name in PREPARED):
            write_provenance(store, record)  # scoring reads from it which checkpoints there are, and some may be new
            write_config(store, config)
            return index
    items_file.write_items(store, items)
    skipped = SkipTally()
    index = prompts_file.write_prompts(store, build_prompts(items, config, written=written, skipped=skipped))
    print(*skipped.lines(), sep="\n", end="\n" if skipped.items else "", file=sys.stderr)
    record |= said
    record["prompts"] = {
        "count": index.num_prompts,
        "digest": index.digest,
        "variants": [[one.variant, one.start, one.stop] for one in index.variants],
        "sha256": {name: store.sha256(name) for name in PREPARED},
        "left_out": skipped.lines(),
    }
    write_provenance(store, record)
    # last: a directory is a run of this configuration once everything that could be refused has been accepted
    write_config(store, config)
    return index


def ask(store: Store, config: Config, checkpoints: Sequence[Checkpoint], index: PromptIndex, pool: Pool) -> Outcome:
    """Has every prompt of the store's prompts.arrow answered by every checkpoint; what is answered already is found on disk."""
    completed = find_completed(store, index.digest)
    pending = pending_units(checkpoints, index, config.trials, config.dispatch.shard_size, completed.keys)
    return dispatch(store, config, checkpoints, index, pending, completed.shards, completed.damaged, pool)


def repeat_for_noise(store: Store, config: Config, checkpoints: Sequence[Checkpoint], index: PromptIndex, pool: Pool) -> None:
    """The A/A repeats of `metrics.noise_repeats`: the same prompts in another order and other shards, in RUN/noise/<n>."""
    for number in range(1, config.metrics.noise_repeats + 1):
        again = store.child(f"noise/{number}")
        again.make_root()
        shuffled = prompts_file.write_shuffled(store, index, again, seed=number)
        size = max(1, config.dispatch.shard_size * 2 // (2 + number))
        settings = replace(config, dispatch=replace(config.dispatch, shard_size=size))
        outcome = ask(again, settings, checkpoints, shuffled, pool)
        if outcome.exit_code != EXIT_COMPLETE:
            raise Incomplete(f"noise repeat {number}: {outcome.sentence()}")


def dispatch(
    store: Store,
    config: Config,
    checkpoints: Sequence[Checkpoint],
    index: PromptIndex,
    pending: Sequence[Unit],
    completed: dict[str, Shard],
    damaged: dict[str, str],
    pool: Pool,
) -> Outcome:
    """Gives the pending units to the engines, and waits until everything that can be done is on disk."""
    total = index.num_prompts * config.trials * len(checkpoints)
    to_do = sum(unit.num_prompts for unit in pending)
    scheduler = Scheduler(
        pending,
        units_in_flight=config.dispatch.units_in_flight,
        max_attempts=config.dispatch.max_attempts,
        max_restarts=config.dispatch.max_restarts,
        costs=rates.expected_costs(checkpoints, config, index),
    )
    facts = {"versions": provenance.versions(), "seeds": provenance.seeds(config), "prompts_digest": index.digest}
    # a worker's process has another working directory than the driver: it is given no relative path
    settings = replace(config, run_dir=Store(config.run_dir).location)
    with Interrupts() as interrupts, Progress(total, total - to_do) as progress, nonce_file(store) as nonce:
        specs = {one.checkpoint_id: WorkerSpec(store.location, one, settings, facts, nonce=nonce) for one in checkpoints}
        journal = Journal(store, completed, progress)
        for name, reason in damaged.items():
            journal.say("shard damaged", shard=name, reason=reason)
        journal.say("plan", prompts=total, pending=to_do, units=len(pending))
        try:
            if pending:
                pool.run(scheduler, specs, journal, interrupts)
        finally:
            for name in overlapped(journal.shards.values()):
                journal.drop(name)
            journal.close()
    rates.remember_costs(checkpoints, config, scheduler.costs)
    missing = pending_units(checkpoints, index, config.trials, 2**62, journal.keys)
    outcome = Outcome(
        store,
        total,
        sum(unit.num_prompts for unit in missing),
        journal.num_errors,
        scheduler.failed_checkpoints,
        interrupts.requested,
        frozenset(unit.checkpoint_id for unit in missing),
        scheduler.retired,
    )
    if outcome.num_missing and interrupts.requested is None and journal.num_prompts == 0 and not completed:
        reasons = {*outcome.failed_checkpoints.values(), *outcome.abandoned.values()}
        raise EngineError("no engine answered anything: " + "; ".join(sorted(reasons)))
    return outcome


def described(config: Config, checkpoints: Sequence[Checkpoint], items: ItemSelection) -> dict[str, Any]:
    """What provenance.json says of what the run evaluates."""
    return {
        "data": {"path": str(items.path), "sha256": file_sha256(items.path), "items": items.num_items, "dropped": list(items.dropped)},
        "checkpoints": [checkpoint.to_json() for checkpoint in checkpoints],
        "seeds": provenance.seeds(config),
    }


@contextlib.contextmanager
def session(store: Store) -> Iterator[dict[str, Any]]:
    """provenance.json, kept over all sessions of a run: written at the start and, with how it ended, at the end."""
    record = read_provenance(store)
    record.setdefault("start", now())
    this = {
        "start": now(),
        "end": None,
        "ended": "killed, or still running",
        "command": provenance.command(),
        "git_commit": provenance.git_commit(),
        "versions": provenance.versions(),
        "hardware": provenance.hardware(),
    }
    record.setdefault("sessions", []).append(this)
    try:
        yield record
    except BaseException as error:
        this["ended"] = f"{type(error).__name__}: {str(error)[:500]}"
        raise
    finally:
        this["end"] = record["end"] = now()
        with contextlib.suppress(WdctError):
            write_provenance(store, record)
