"""The worker: prompts in, a shard out, with the scripted engine and a real store."""

from __future__ import annotations

import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.config.schema import Config, DispatchConfig, EngineConfig, EngineKind, ScriptedConfig
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.worker import Worker, WorkerSpec
from wdct_dist.errors import EngineError, RunDirError, StorageError
from wdct_dist.prompts.types import Message, Prompt
from wdct_dist.tables.prompts_file import write_prompts
from wdct_dist.tables.shards import verify
from wdct_dist.tables.shared_directory import nonce_file, require_nonce
from wdct_dist.tables.storage import Store

CHECKPOINT = scripted_checkpoint("demo")
FACTS = {"seeds": {"order_seed": 5}, "prompts_digest": "d"}


def prompt(number: int) -> Prompt:
    text = (Message("user", f"Frage {number}?"),)
    return Prompt(f"p{number}", f"item-{number}", "Opinion", "word", "direct", "en", (1, 0), ("A", "B"), text, "score")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    write_prompts(store, [prompt(number) for number in range(64)])
    return store


@pytest.fixture
def worker(store: Store) -> Iterator[Callable[..., Worker]]:
    made: list[Worker] = []

    def make(store_retry_s: float = 0.0, nonce: str | None = None, **scripted: str) -> Worker:
        config = Config(
            engine=EngineConfig(kind=EngineKind.scripted, scripted=ScriptedConfig(**scripted)),  # type: ignore[arg-type]
            dispatch=DispatchConfig(store_retry_s=store_retry_s),
        )
        made.append(Worker(WorkerSpec(store.uri, CHECKPOINT, config, FACTS, nonce=nonce)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def unit(start: int, stop: int, trial: int = 0) -> Unit:
    return Unit("demo", CHECKPOINT.digest, "direct", trial, start, stop)


def table(store: Store, one: Unit) -> pa.Table:
    data = store.read(one.shard_name)
    verify(one.shard_name, data)
    return pa.ipc.open_file(pa.BufferReader(data)).read_all()


def test_a_units_prompts_are_answered_in_order_and_its_counts_are_those_of_the_table(worker: Callable[..., Worker], store: Store) -> None:
    one = worker(error_on="Frage 20?")
    assert one.start().kind == "scripted"
    report = one.run(unit(16, 48, trial=3))
    rows = table(store, unit(16, 48, trial=3))
    assert rows["prompt_id"].to_pylist() == [f"p{number}" for number in range(16, 48)]
    assert set(rows["trial"].to_pylist()) == {3}
    assert report.num_errors == rows.num_rows - rows["error"].null_count == 1
    assert report.num_prompt_tokens == sum(count or 0 for count in rows["num_prompt_tokens"].to_pylist()) > 0
    assert report.num_output_tokens == 31
    assert report.seconds > 0


def test_versions_seeds_engine_and_unit_travel_with_the_shard(worker: Callable[..., Worker], store: Store) -> None:
    one = worker()
    one.start()
    one.run(unit(0, 8))
    facts = json.loads(table(store, unit(0, 8)).schema.metadata[b"wdct.facts"])
    assert facts["seeds"] == {"order_seed": 5}
    assert facts["engine"]["kind"] == "scripted"
    assert facts["unit"] == {"checkpoint_id": "demo", "digest": CHECKPOINT.digest, "variant": "direct", "trial": 0, "start": 0, "stop": 8}


def test_a_unit_done_twice_is_the_same_file(worker: Callable[..., Worker], store: Store) -> None:
    one, other = worker(), worker()
    one.start()
    one.run(unit(0, 64))
    first = store.read(unit(0, 64).shard_name)
    other.start()
    other.run(unit(0, 64))
    assert store.read(unit(0, 64).shard_name) == first


def test_units_from_several_threads_at_once_are_those_from_one(worker: Callable[..., Worker], store: Store) -> None:
    one = worker()
    one.start()
    whole = one.run(unit(0, 64))
    together = table(store, unit(0, 64))
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(one.run, unit(0, 64).split(8)))
    apart = pa.concat_tables([table(store, part) for part in unit(0, 64).split(8)])
    assert apart.replace_schema_metadata() == together.replace_schema_metadata()
    assert sum(part.num_prompt_tokens for part in parts) == whole.num_prompt_tokens


def test_prompts_that_no_engine_survives_are_recorded_without_one(worker: Callable[..., Worker], store: Store) -> None:
    report = worker().record(unit(5, 7), "it was alone in the engine, 2 times")
    rows = table(store, unit(5, 7))
    assert report.num_errors == 2
    assert rows["prompt_id"].to_pylist() == ["p5", "p6"]
    assert rows["error"].to_pylist() == ["it was alone in the engine, 2 times"] * 2
    assert rows["option_logprobs"].null_count == 2


def test_an_engine_that_does_not_start_says_why(worker: Callable[..., Worker]) -> None:
    with pytest.raises(EngineError, match="does not start for demo"):
        worker(fail_start="demo").start()


def test_a_worker_starts_only_if_it_sees_the_nonce_file_of_the_driver(worker: Callable[..., Worker], store: Store) -> None:
    with nonce_file(store) as nonce:
        worker(nonce=nonce).start()
    with pytest.raises(RunDirError, match="run_dir must be the same directory on every node"):
        require_nonce(store, nonce, patience_s=0)


def test_after_closing_the_engine_answers_nothing(worker: Callable[..., Worker]) -> None:
    one = worker()
    one.start()
    one.close()
    with pytest.raises(EngineError, match="closed"):
        one.run(unit(0, 8))


class Mender(io.StringIO):
    """The error output; makes the folder as soon as it is said there that a store fails."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def write(self, text: str) -> int:
        if "Trying again for" in text:
            self._folder.mkdir()
        return super().write(text)


def test_a_store_that_fails_for_a_moment_is_tried_again(
    worker: Callable[..., Worker], store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.local is not None
    one = worker(store_retry_s=300.0)
    one.start()
    shutil.rmtree(store.local / "answers")
    said = Mender(store.local / "answers")
    monkeypatch.setattr("sys.stderr", said)
    one.run(unit(0, 8))
    assert "could not be written" in said.getvalue()
    assert table(store, unit(0, 8)).num_rows == 8


def test_a_store_that_goes_on_failing_ends_the_unit_with_its_reason(worker: Callable[..., Worker], store: Store) -> None:
    assert store.local is not None
    one = worker(store_retry_s=1.0)
    one.start()
    shutil.rmtree(store.local / "answers")
    began = time.monotonic()
    with pytest.raises(StorageError, match="could not be written"):
        one.run(unit(0, 8))
    # pauses double from 0.2 s, and one that would end too late is not begun: 0.4 s of the second have passed at least
    assert 0.4 <= time.monotonic() - began < 30


def test_a_full_disk_is_not_tried_again(worker: Callable[..., Worker], store: Store, files_up_to: Callable[[int], Any]) -> None:
    one = worker(store_retry_s=600.0)
    one.start()
    began = time.monotonic()
    with pytest.raises(StorageError, match="no space left on the device"), files_up_to(1024):
        one.run(unit(0, 64))
    assert time.monotonic() - began < 300
    assert store.local is not None
    assert list((store.local / "answers").iterdir()) == [], "nothing under a hidden name either"
