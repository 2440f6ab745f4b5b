"""Adapters that share an engine: which do, in what order, and that their rows are those of merged ones."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist import pipeline
from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.checkpoints.types import Checkpoint
from wdct_dist.config.load import load_config
from wdct_dist.config.schema import Adapters, Config, DispatchConfig, EngineConfig, EngineKind, Reuse
from wdct_dist.dispatch.costs import Costs, Profile
from wdct_dist.dispatch.journal import Journal
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.progress import Progress
from wdct_dist.dispatch.scheduler import Load, Run, Scheduler
from wdct_dist.dispatch.sharing import merge_instead, share_adapters, sharers
from wdct_dist.dispatch.worker import WorkerSpec
from wdct_dist.tables.storage import Store

TOLERANCE = 1e-4
"""Of a logprob, shared against merged, in float32; measured 2e-5."""


def units(checkpoint: str, count: int) -> list[Unit]:
    return [Unit(checkpoint, f"digest-{checkpoint}", "direct", 0, 64 * n, 64 * (n + 1)) for n in range(count)]


@pytest.fixture
def costs() -> Costs:
    """a, b and c are of one architecture; a and b are adapters that share their base."""
    made = Costs({name: Profile("one") for name in "abc"}, can_swap=True)
    made.share("a", "group")
    made.share("b", "group")
    return made


def test_an_engine_takes_the_next_adapter_of_its_group_while_the_last_units_of_another_are_in_flight(costs: Costs) -> None:
    scheduler = Scheduler([*units("a", 2), *units("b", 2)], costs=costs)
    assert [scheduler.next(0) for _ in range(4)] == [Load("a"), Run(units("a", 2)[0]), Run(units("a", 2)[1]), None]
    scheduler.done(0, units("a", 2)[0])
    assert [scheduler.next(0), scheduler.next(0), scheduler.next(0)] == [Load("b"), Run(units("b", 2)[0]), None]
    assert {unit.checkpoint_id for unit in scheduler.in_flight(0)} == {"a", "b"}


def test_a_checkpoint_outside_the_group_is_taken_when_nothing_is_in_flight_and_by_a_fresh_engine(costs: Costs) -> None:
    scheduler = Scheduler([*units("a", 2), *units("c", 1)], costs=costs)
    assert [scheduler.next(0) for _ in range(3)] == [Load("a"), Run(units("a", 2)[0]), Run(units("a", 2)[1])]
    scheduler.done(0, units("a", 2)[0])
    assert scheduler.next(0) is None
    scheduler.done(0, units("a", 2)[1])
    assert scheduler.next(0) == Load("c")
    assert not costs.swaps("c", "a")
    assert costs.swaps("b", "a")


def test_units_of_several_adapters_that_die_with_their_engine_are_all_done_again(costs: Costs) -> None:
    scheduler = Scheduler([*units("a", 1), *units("b", 1)], costs=costs)
    assert [scheduler.next(0) for _ in range(4)] == [Load("a"), Run(units("a", 1)[0]), Load("b"), Run(units("b", 1)[0])]
    scheduler.lost(0, "killed")
    done = set()
    while not scheduler.finished:
        action = scheduler.next(0)
        if isinstance(action, Run):
            done.add(action.unit.checkpoint_id)
            scheduler.done(0, action.unit)
    assert done == {"a", "b"}


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def journal(tmp_path: Path, said: io.StringIO) -> Journal:
    store = Store(str(tmp_path / "run"))
    store.make_root()
    return Journal(store, {}, Progress(0, 0, stream=said))


def adapter(name: str, base: str, rank: int = 8, because: str | None = None) -> Checkpoint:
    import dataclasses

    on = scripted_checkpoint(base)
    return dataclasses.replace(scripted_checkpoint(name), kind="adapter", base=on, adapter_rank=rank, merged_because=because)


def specs_of(adapters: Adapters, reuse: Reuse = Reuse.swap, kind: EngineKind = EngineKind.vllm) -> dict[str, WorkerSpec]:
    """The base x, three adapters of it, of which one must be merged, and one adapter of y."""
    config = Config(engine=EngineConfig(kind=kind, adapters=adapters), dispatch=DispatchConfig(reuse=reuse))
    checkpoints = [
        scripted_checkpoint("x"),
        adapter("x1", "x", 4),
        adapter("x2", "x", 32),
        adapter("x3", "x", 0, "it adapts the output layer"),
        adapter("y1", "y"),
    ]
    return {one.checkpoint_id: WorkerSpec("run", one, config, {}) for one in checkpoints}


@pytest.mark.parametrize(
    ("adapters", "on_gpu", "shared"),
    [
        (Adapters.auto, True, {"x1", "x2"}),
        (Adapters.auto, False, set()),
        (Adapters.share, False, {"x1", "x2", "y1"}),
        (Adapters.merge, True, set()),
    ],
)
def test_adapters_of_one_base_share_where_it_pays_and_never_with_the_base_or_with_those_of_another(
    adapters: Adapters, on_gpu: bool, shared: set[str], journal: Journal
) -> None:
    specs, costs = specs_of(adapters), Costs(can_swap=True)
    share_adapters(specs, costs, journal, on_gpu=on_gpu)
    assert {name for name, spec in specs.items() if spec.sharing is not None} == shared
    assert {name for name in specs if costs.shares(name)} == shared
    if shared:
        assert specs["x1"].sharing == specs["x2"].sharing
        assert specs["x1"].sharing is not None
        assert (specs["x1"].sharing.highest_rank, specs["x1"].sharing.num_slots) == (32, 3)
        assert costs.shares("x1", "x2")
        assert not costs.shares("x1", "y1")


def test_each_adapter_that_is_merged_is_said_with_the_reason(journal: Journal, said: io.StringIO) -> None:
    specs, costs = specs_of(Adapters.auto), Costs(can_swap=True)
    share_adapters(specs, costs, journal, on_gpu=True)
    sharing = specs["x1"].sharing
    assert sharing is not None
    merge_instead(sharers(sharing, specs), "sharing an engine failed: no room", specs, costs, journal)
    assert not costs.shares("x1")
    assert specs["x2"].sharing is None
    assert "adapters merged: checkpoints ['x3'], reason it adapts the output layer" in said.getvalue()
    assert "adapters merged: checkpoints ['y1'], reason it is the only one of its base" in said.getvalue()
    assert "adapters merged: checkpoints ['x1', 'x2'], reason sharing an engine failed: no room" in said.getvalue()


@pytest.mark.parametrize(("reuse", "kind"), [(Reuse.restart, EngineKind.vllm), (Reuse.swap, EngineKind.scripted)])
def test_no_adapter_shares_where_no_engine_lives_on_or_has_weights(reuse: Reuse, kind: EngineKind, journal: Journal) -> None:
    specs = specs_of(Adapters.auto, reuse, kind)
    share_adapters(specs, Costs(), journal, on_gpu=True)
    assert all(spec.sharing is None for spec in specs.values())


CONFIG = """
run_dir: {run}
data: {{limit: 4}}
checkpoints: [{checkpoints}]
engine: {{kind: vllm, dtype: float32, max_model_len: 1024, cpu_cache_gib: 0.1, adapters: {adapters}}}
report: {{html: false}}
dispatch: {{shard_size: 8, executor: {executor}}}
metrics: {{bootstrap_resamples: 10}}
"""


class Ended:
    """A run that has ended, and what it left."""

    def __init__(self, folder: Path) -> None:
        self.events: list[dict[str, Any]] = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
        self.answers = pl.scan_ipc(str(folder / "answers" / "*.arrow")).collect().sort("checkpoint_id", "prompt_id")
        self.applied: dict[str, set[str | None]] = {}
        """`adapters` of the shards' facts, by checkpoint."""
        for path in (folder / "answers").glob("*.arrow"):
            facts = json.loads(pa.ipc.open_file(str(path)).schema.metadata[b"wdct.facts"])
            self.applied.setdefault(facts["unit"]["checkpoint_id"], set()).add(facts.get("adapters"))

    def reasons(self, event: str) -> dict[str, str]:
        """By checkpoint, of all events of that kind."""
        found = [one for one in self.events if one["event"] == event]
        return {name: one["reason"] for one in found for name in one.get("checkpoints", [one.get("checkpoint")])}


Evaluate = Callable[..., Ended]


@pytest.fixture
def evaluate(adapter_family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    base = adapter_family["base"]
    entries = {name: f"{{id: {name}, path: '{path}', base: '{base}'}}" for name, path in adapter_family.items()}
    entries["base"] = f"{{id: base, path: '{base}'}}"

    def evaluated(names: Sequence[str], adapters: str, executor: str) -> Ended:
        run = tmp_path / f"{adapters}-{executor}"
        path = run.with_suffix(".yaml")
        checkpoints = ", ".join(entries[name] for name in names)
        path.write_text(CONFIG.format(run=run, checkpoints=checkpoints, adapters=adapters, executor=executor))
        if executor == "local":  # in this process, which has vLLM
            assert pipeline.evaluate(load_config(path)).exit_code == 0
            return Ended(run)
        done = subprocess.run([sys.executable, "-m", "wdct_dist", "evaluate", str(path)], capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        return Ended(run)

    return evaluated


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_rows_of_adapters_that_share_an_engine_are_those_of_merged_ones_each_under_its_own_digest(evaluate: Evaluate) -> None:
    """vLLM does not load `odd`, which is then merged, as `whole` is from the begin. Those have another engine, and the base too."""
    merged = evaluate(["four", "sixteen", "odd", "whole", "base"], "auto", "local")
    assert merged.applied == {"base": {None}, **{name: {"merged"} for name in ("four", "sixteen", "odd", "whole")}}
    assert "without a GPU that is faster" in merged.reasons("adapters merged")["four"]
    applied = {"four": {"shared"}, "sixteen": {"shared"}, "odd": {"merged"}, "whole": {"merged"}, "base": {None}}
    for executor, names in (("local", list(applied)), ("ray", ["four", "sixteen", "odd"])):
        shared = evaluate(names, "share", executor)
        assert shared.applied == {name: applied[name] for name in names}
        because = shared.reasons("adapters merged")
        assert because.get("whole") == ("it replaces whole tensors (modules_to_save)" if "whole" in names else None)
        assert because["odd"] == f"sharing an engine failed: {shared.reasons('swap failed')['odd']}"
        assert "the adapter was not loaded" in because["odd"]
        wanted = merged.answers.filter(pl.col("checkpoint_id").is_in(names))
        keys = ["checkpoint_id", "checkpoint_digest", "prompt_id", "rendered_digest", "error"]
        assert shared.answers.select(keys).equals(wanted.select(keys))
        assert shared.answers["error"].null_count() == shared.answers.height
        exploded = [answers["option_logprobs"].explode().to_list() for answers in (shared.answers, wanted)]
        assert max(abs(one - other) for one, other in zip(*exploded, strict=True)) < TOLERANCE
        first = shared.answers.group_by("checkpoint_id").agg(pl.col("option_logprobs").first())
        assert len({tuple(row) for row in first["option_logprobs"]}) == len(names)
        taken = {event["checkpoint"]: event for event in shared.events if event["event"] == "engine swapped"}
        proven = [(taken[name]["canary"], taken[name]["canary_num_tensors"]) for name in ("four", "sixteen")]
        assert proven == [("passed", 12), ("passed", 28)]
        starts = [event["checkpoint"] for event in shared.events if event["event"] == "engine started"]
        # one for those that share, one for the others; one more where `odd` was refused while `sixteen` still waited
        assert len(starts) in (2, 3)
