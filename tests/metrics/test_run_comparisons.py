"""Comparisons of a whole run, in this process: the tables, and what the summary gains."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.config.load import load_config
from wdct_dist.config.schema import MetricsConfig
from wdct_dist.metrics.run_comparisons import repeat_panels, write_comparisons
from wdct_dist.metrics.run_scores import write_scores
from wdct_dist.pipeline import evaluate
from wdct_dist.tables import schema
from wdct_dist.tables.run_dir import read_provenance
from wdct_dist.tables.shards import encode
from wdct_dist.tables.storage import Store

CONFIG = """
run_dir: {run}
data: {{limit: 40, languages: [en, zh]}}
checkpoints: [a, b]
engine: {{kind: scripted}}
trials: 2
dispatch: {{executor: local, shard_size: 100}}
metrics: {{bootstrap_resamples: 50}}
"""
SETTINGS = MetricsConfig(bootstrap_resamples=50)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparisons")
    (folder / "c.yaml").write_text(CONFIG.format(run=folder / "run"))
    assert evaluate(load_config(folder / "c.yaml")).exit_code == 0
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Store:
    return Store(str(shutil.copytree(finished, tmp_path / "run")))


def digests(store: Store) -> dict[str, str]:
    return {one["checkpoint_id"]: one["digest"] for one in read_provenance(store)["checkpoints"]}


def compare(store: Store) -> pl.DataFrame:
    return write_comparisons(store, write_scores(store, digests(store), SETTINGS), digests(store), SETTINGS)


def table(store: Store, name: str) -> pl.DataFrame:
    return pl.DataFrame(pa.ipc.open_file(store.open(f"scores/{name}.arrow")).read_all())


def repeat(store: Store, number: int, checkpoint: str, share: float, generator: np.random.Generator) -> None:
    """An A/A repeat in `noise/{number}`, in one shard a trial: the answers of `checkpoint`, some log-probabilities swapped."""
    names = [name for name in store.names("answers") if name.startswith(f"answers/{checkpoint}@")]
    answers = pl.concat([pl.DataFrame(pa.ipc.open_file(store.open(name)).read_all()) for name in names])
    again = Store(f"{store.uri}/noise/{number}")
    again.make_root()
    for trial, own in enumerate(answers.sort("trial").partition_by("trial")):
        swapped = pl.Series(generator.random(own.height) < share)
        moved = own.sample(fraction=1, shuffle=True, seed=number).with_columns(
            pl.when(swapped).then(pl.col("option_logprobs").list.reverse()).otherwise("option_logprobs").alias("option_logprobs")
        )
        rows = moved.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema.ANSWERS)
        shard = f"answers/{checkpoint}@{own['checkpoint_digest'][0][:16]}.t{trial:03d}.000000000-{own.height:09d}.arrow"
        again.write(shard, encode(rows, {})[0])


def test_a_difference_is_that_of_the_two_figures_in_the_summary(run: Store) -> None:
    summary = compare(run)
    differences = table(run, "differences").filter(kind="checkpoint")
    assert differences.height == 2 * 3 * 4
    keys = ["variant", "language", "domain", "metric"]
    sides = [summary.filter(checkpoint_id=name).select(*keys, pl.col("value").alias(name)) for name in "ab"]
    both = differences.join(sides[0], on=keys).join(sides[1], on=keys)
    assert both.height == differences.height
    assert (both["a"] - both["b"]).to_list() == pytest.approx(both["difference"].to_list(), abs=1e-11)


def test_what_the_summary_had_stays_and_the_new_rows_follow(run: Store) -> None:
    before = write_scores(run, digests(run), SETTINGS)
    after = write_comparisons(run, before, digests(run), SETTINGS)
    assert after.head(before.height).equals(before)
    new = after.tail(after.height - before.height)["metric"].unique().sort().to_list()
    assert new == ["agreement_deed_en_zh", "agreement_word_en_zh", "bit_stable"]
    assert table(run, "summary").equals(after)
    lines = run.read("scores/summary.csv").decode().splitlines()
    assert len(lines) == after.height + 1
    assert after.filter(metric="bit_stable")["value"].unique().to_list() == [1.0]


def test_scoring_again_gives_the_same_bytes(run: Store) -> None:
    compare(run)
    names = ("differences", "effects", "noise", "summary")
    before = [run.read(f"scores/{name}.arrow") for name in names]
    compare(run)
    assert [run.read(f"scores/{name}.arrow") for name in names] == before


def test_without_repeats_there_is_no_floor_and_no_mark(run: Store) -> None:
    compare(run)
    assert repeat_panels(run, digests(run)) == []
    assert table(run, "noise").height == 0
    assert table(run, "differences")["below_noise"].null_count() == table(run, "differences").height


def test_repeats_give_floors_and_marks(run: Store) -> None:
    generator = np.random.default_rng(3)
    repeat(run, 1, "a", 0.1, generator)
    repeat(run, 2, "a", 0.1, generator)
    answers = run.names("answers")
    summary = compare(run)
    assert run.names("answers") == answers
    floors = table(run, "noise")
    assert floors["num_repeats"].unique().to_list() == [2]
    assert floors["checkpoint_id"].unique().to_list() == ["a"]
    floor = floors.filter(domain="all", metric="cs", language="en")["floor"].item()
    assert 0 < floor < 0.2
    assert summary.filter(metric="noise", domain="all", language="en")["value"].to_list() == [floor]
    differences = table(run, "differences").filter(kind="checkpoint", domain="all", metric="cs", language="en").to_dicts()[0]
    assert differences["noise"] == floor
    assert differences["below_noise"] == (abs(differences["difference"]) <= floor)


def test_a_repeat_that_moves_nothing_has_a_floor_of_0(run: Store) -> None:
    repeat(run, 1, "b", 0.0, np.random.default_rng(0))
    compare(run)
    floors = table(run, "noise")
    assert floors["floor"].unique().to_list() == [0.0]
    assert floors["n"].min() > 0  # type: ignore[operator]


def test_a_repeat_that_was_broken_off_is_judged_by_the_items_that_it_asked_whole(run: Store) -> None:
    repeat(run, 1, "b", 0.0, np.random.default_rng(0))
    again = Store(f"{run.uri}/noise/1")
    name = max(again.names("answers"))  # the second trial
    rows = pl.DataFrame(pa.ipc.open_file(again.open(name)).read_all())
    again.delete(name)
    # every third prompt was not asked: nothing moved, and nothing may look as if it had
    kept = rows.filter(pl.int_range(pl.len()) % 3 > 0)
    again.write(name, encode(kept.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema.ANSWERS), {})[0])
    compare(run)
    floors = table(run, "noise").filter(domain="all", language="en")
    assert floors["floor"].unique().to_list() == [0.0]
    assert 0 < floors["n"].unique().item() < 40
