"""The journal: manifest, events and display of a run under way, fed by real units."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.config.schema import Config, EngineConfig, EngineKind
from wdct_dist.dispatch import journal as journal_module
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.progress import Progress
from wdct_dist.dispatch.worker import Worker, WorkerSpec
from wdct_dist.prompts.types import Message, Prompt
from wdct_dist.tables.events import read_events
from wdct_dist.tables.manifest import NAME as MANIFEST
from wdct_dist.tables.manifest import read_manifest
from wdct_dist.tables.prompts_file import write_prompts
from wdct_dist.tables.storage import Store

CHECKPOINT = scripted_checkpoint("demo")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    text = (Message("user", "Ja?"),)
    write_prompts(
        store, [Prompt(f"p{n}", f"i{n}", "Opinion", "word", "direct", "en", (0, 1), ("A", "B"), text, "score") for n in range(120)]
    )
    return store


@pytest.fixture
def worker(store: Store) -> Worker:
    return Worker(WorkerSpec(store.uri, CHECKPOINT, Config(engine=EngineConfig(kind=EngineKind.scripted)), {}))


@pytest.fixture
def shown() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def journal(store: Store, shown: io.StringIO) -> Iterator[Journal]:
    with Progress(120, 0, shown) as progress:
        yield Journal(store, {}, progress)


def unit(start: int, stop: int) -> Unit:
    return Unit("demo", CHECKPOINT.digest, "direct", 0, start, stop)


def test_a_unit_is_counted_logged_and_in_the_manifest_at_the_end(journal: Journal, worker: Worker, store: Store) -> None:
    worker.start()
    journal.unit_done(0, worker.run(unit(0, 40)))
    journal.unit_done(0, worker.record(unit(40, 60), "no engine survives it"))
    journal.close()
    assert (journal.num_prompts, journal.num_errors) == (60, 20)
    assert [(key.start, key.stop) for key in journal.keys] == [(0, 40), (40, 60)]
    events = [event for event in read_events(store) if event["event"] == "unit done"]
    assert [(event["rows"], event["errors"], event["engine"]) for event in events] == [(40, 0, 0), (20, 20, 0)]
    assert set(read_manifest(store)) == {event["shard"] for event in events} == set(journal.shards)


def test_shards_of_earlier_sessions_stay_in_the_manifest(journal: Journal, worker: Worker, store: Store, shown: io.StringIO) -> None:
    worker.start()
    journal.unit_done(0, worker.run(unit(0, 40)))
    journal.close()
    with Progress(120, 40, shown) as progress:
        later = Journal(store, read_manifest(store), progress)
        later.unit_done(0, worker.run(unit(40, 80)))
        later.close()
    assert len(read_manifest(store)) == 2
    assert later.num_prompts == 40


def test_the_manifest_is_written_between_units_but_not_for_each(
    journal: Journal, worker: Worker, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.start()
    monkeypatch.setattr(journal_module, "MANIFEST_EVERY_S", 600.0)  # more than a slow machine takes for a unit
    journal.unit_done(0, worker.run(unit(0, 40)))
    assert not store.exists(MANIFEST)
    monkeypatch.setattr(journal_module, "MANIFEST_EVERY_S", 0.0)
    journal.unit_done(0, worker.run(unit(40, 80)))
    assert len(read_manifest(store)) == 2


def test_a_dropped_shard_is_gone_from_the_disk_and_from_the_manifest(journal: Journal, worker: Worker, store: Store) -> None:
    journal.unit_done(0, worker.record(unit(0, 8), "why"))
    (name,) = journal.shards
    journal.drop(name)
    journal.close()
    assert not store.exists(name)
    assert read_manifest(store) == {}


def test_what_a_user_should_know_of_is_shown_and_everything_is_logged(journal: Journal, store: Store, shown: io.StringIO) -> None:
    journal.say("pool", engines=2)
    journal.say("engine lost", engine=1, reason="it died")
    journal.stopping("SIGTERM")
    journal.stopping("SIGTERM")
    assert shown.getvalue().splitlines()[1:] == [
        "engine lost: engine 1, reason it died",
        "stopping: on SIGTERM, after the units in flight; a second signal ends at once",
    ]
    assert [event["event"] for event in read_events(store)] == ["pool", "engine lost", "stopping"]


def test_what_an_engine_notes_when_it_starts_is_logged(journal: Journal, worker: Worker, store: Store) -> None:
    facts = replace(worker.start(), notes=("first", "second"))
    journal.engine_started(3, "demo", facts, 1.23456)
    started, *notes = read_events(store)
    assert (started["event"], started["engine"], started["seconds"]) == ("engine started", 3, 1.235)
    assert (started["hardware"], started["dtype"]) == (facts.hardware, facts.dtype) == ("none", "float64")
    assert [note["note"] for note in notes] == ["first", "second"]
