"""A whole run scored, against a reference in plain Python, in any order of shards and any size of slices."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from wdct_dist.errors import RunDirError
from wdct_dist.metrics.bootstrap import Bootstrap
from wdct_dist.metrics.compute import SLICE_ROWS, score
from wdct_dist.tables import schema


@dataclass(frozen=True)
class Source:
    """Answers in memory, by checkpoint."""

    answers: dict[str, pa.Table]

    def checkpoints(self) -> list[str]:
        return list(self.answers)

    def tables(self, checkpoint_id: str) -> pl.LazyFrame:
        return pl.DataFrame(self.answers[checkpoint_id]).lazy()


def scored(
    run: Any, *, checkpoints: tuple[str, ...] = ("c",), slice_rows: int = SLICE_ROWS, resamples: int = 20
) -> tuple[pa.Table, pa.Table]:
    """scores/items and the summary of one table of answers, for each of the checkpoints."""
    pieces: list[pa.Table] = []
    _, prompts = run.lazy()
    summary = score(
        Source(dict.fromkeys(checkpoints, run.answers)),
        prompts,
        pl.DataFrame(run.items).lazy(),
        write_items=pieces.append,
        bootstrap=Bootstrap(resamples, seed=4),
        slice_rows=slice_rows,
    )
    return pa.concat_tables(pieces) if pieces else schema.SCORES_ITEMS.empty_table(), summary


def value(summary: pa.Table, metric: str, domain: str = "all", **where: str) -> float | None:
    found = pl.DataFrame(summary).filter(metric=metric, domain=domain, **where)
    assert found.height == 1
    return found["value"].item()


def random_run(ask: Any, item: Any, tables: Any, seed: int) -> Any:
    """A small run with everything in it: 2 to 4 options, ties, errors, trials, variants, languages, missing translations."""
    draws = random.Random(seed)
    asked, items = [], []
    for number in range(12):
        k = draws.choice((2, 2, 3, 4))
        domain = draws.choice(("Opinion", "EthV", "甲"))
        items.append(item(f"i{number}", domain, k, draws.choice((None, 0, k - 1)), ("repeated-option",) if number == 3 else ()))
        orders = [tuple((start + i) % k for i in range(k)) for start in range(k)]
        for variant, language in (("direct", "en"), ("direct", "zh"), ("other", "en")):
            if language == "zh" and number % 3 == 0:
                continue
            for side, order, trial in itertools.product(("word", "deed"), orders, range(3)):
                # eighths are often equal, so ties are common
                weights = [draws.randint(1, 8) for _ in range(k)]
                probs = tuple(weight / sum(weights) for weight in weights)
                broken = draws.random() < (0.9 if number == 5 else 0.1)
                asked.append(
                    ask(
                        f"i{number}",
                        side,
                        order,
                        None if broken else probs,
                        trial,
                        "broken" if broken else None,
                        round(draws.random(), 3),
                        variant,
                        language,
                        domain,
                    )
                )
    return tables(asked, items)


# The reference: as the design says it, in plain Python, from one item at a time.


def shares(probs: list[float], tolerance: float = 0.0) -> list[float]:
    tops = [prob >= max(probs) - tolerance for prob in probs]
    return [top / sum(tops) for top in tops]


def mean(values: list[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def jsd(p: list[float], q: list[float]) -> float:
    def divergence(a: list[float], b: list[float]) -> float:
        return math.fsum(x * math.log2(x / y) for x, y in zip(a, b, strict=True) if x > 0)

    middle = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
    return (divergence(p, middle) + divergence(q, middle)) / 2


def dot(p: list[float], q: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(p, q, strict=True))


def average(lists: list[list[float]]) -> list[float] | None:
    return [math.fsum(column) / len(lists) for column in zip(*lists, strict=True)] if lists else None


def reference(run: Any) -> dict[tuple[str, str, str, int], dict[str, Any]]:
    """Each row of scores/items, by variant, language, item and trial."""
    prompts = {row["prompt_id"]: row for row in run.prompts.to_pylist()}
    grouped: dict[tuple[str, str, str, int], dict[str, list[Any]]] = defaultdict(lambda: {"word": [], "deed": []})
    for row in run.answers.to_pylist():
        prompt = prompts[row["prompt_id"]]
        logprobs = row["option_logprobs"]
        probs = None
        if logprobs is not None:
            weights = [math.exp(logprob) for logprob in logprobs]
            probs = [weight / sum(weights) for weight in weights]
        key = (prompt["variant"], prompt["language"], prompt["item_id"], row["trial"])
        grouped[key][prompt["side"]].append((probs, None if logprobs is None else shares(logprobs), row["label_mass"]))
    found = {}
    for key, sides in grouped.items():
        given = {side: [one for one in sides[side] if one[0] is not None] for side in sides}
        row: dict[str, Any] = {}
        for side, answers in given.items():
            probs = average([one[0] for one in answers])
            debiased = shares(probs, 1e-9) if probs else None
            row[f"{side}_probs"], row[f"{side}_debiased"] = probs, debiased
            row[f"{side}_tie"] = debiased.count(0.0) < len(debiased) - 1 if debiased else None
            row[f"{side}_option"] = debiased.index(1.0) if debiased and 1.0 in debiased else None
            complete = len(answers) == len(sides[side]) and len(answers) > 1
            row[f"{side}_stable"] = len({tuple(one[1]) for one in answers}) == 1 and 1.0 in answers[0][1] if complete else None
            row[f"label_mass_{side}"] = mean([one[2] for one in answers])
        pairs = list(itertools.product(given["word"], given["deed"]))
        row["match"] = mean([dot(word[1], deed[1]) for word, deed in pairs])
        row["pcs"] = mean([1 - jsd(word[0], deed[0]) for word, deed in pairs])
        both = row["word_probs"] and row["deed_probs"]
        row["pcs_debiased"] = 1 - jsd(row["word_probs"], row["deed_probs"]) if both else None
        row["expected"] = dot(row["word_debiased"], row["deed_debiased"]) if both else None
        row["answers"], row["prompts"] = len(given["word"] + given["deed"]), len(sides["word"] + sides["deed"])
        row["ties"] = sum(1.0 not in one[1] for side in given.values() for one in side)
        row["masses"] = [one[2] for side in given.values() for one in side]
        found[key] = row
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_run_with_everything_in_it_is_scored_as_the_reference_says(ask: Any, item: Any, tables: Any, seed: int) -> None:
    run = random_run(ask, item, tables, seed)
    items, _ = scored(run)
    expected = reference(run)
    rows = items.to_pylist()
    assert len(rows) == len(expected)
    for row in rows:
        wanted = expected[row["variant"], row["language"], row["item_id"], row["trial"]]
        for name in ("word_option", "deed_option", "word_tie", "deed_tie", "word_stable", "deed_stable"):
            assert row[name] == wanted[name], (row, name)
        for name in ("word_probs", "deed_probs", "match", "pcs", "pcs_debiased", "label_mass_word", "label_mass_deed"):
            assert row[name] == (None if wanted[name] is None else pytest.approx(wanted[name], abs=1e-9)), (row, name)
        settled = {0.0: False, 1.0: True, None: None}
        assert row["match_debiased"] is settled.get(wanted["expected"])


@pytest.mark.parametrize("seed", range(2))
def test_the_summary_is_that_of_the_rows(ask: Any, item: Any, tables: Any, seed: int) -> None:
    run = random_run(ask, item, tables, seed)
    _, summary = scored(run)
    domain_of = {row["item_id"]: row["domain"] for row in run.items.to_pylist()}
    sizes = {row["item_id"]: row["num_options"] for row in run.items.to_pylist()}
    for variant, language in (("direct", "en"), ("direct", "zh"), ("other", "en")):
        for domain in ("all", *set(domain_of.values())):
            rows = {
                key[2:]: row
                for key, row in reference(run).items()
                if key[:2] == (variant, language) and domain in ("all", domain_of[key[2]])
            }
            by_item: dict[str, list[Any]] = defaultdict(list)
            for (item_id, _), row in rows.items():
                by_item[item_id].append(row)
            if not by_item:
                continue

            def over_items(name: str, default: float | None = None, by_item: Any = by_item) -> float | None:
                values = [[default if row[name] is None else row[name] for row in trials] for trials in by_item.values()]
                means = [mean([one for one in trials if one is not None]) for trials in values]
                return mean([one for one in means if one is not None])

            stable = [row["match"] for row in rows.values() if row["word_stable"] and row["deed_stable"]]
            answers = sum(row["answers"] for row in rows.values())
            agreements = []
            for trials in by_item.values():
                sides = []
                for side in ("word", "deed"):
                    given = [row[f"{side}_debiased"] for row in trials if row[f"{side}_debiased"]]
                    sides += [one] if (one := mean([dot(a, b) for a, b in itertools.combinations(given, 2)])) is not None else []
                agreements += [one] if (one := mean(sides)) is not None else []
            wanted = {
                "cs": over_items("match"),
                "pcs": over_items("pcs"),
                "pcs_debiased": over_items("pcs_debiased"),
                "cs_debiased": over_items("expected"),
                "cs_lower": over_items("match", 0.0),
                "cs_upper": over_items("match", 1.0),
                "cs_stable": mean(stable),
                "cs_chance": mean([1 / sizes[item_id] for item_id in by_item]),
                "stable_word": over_items("word_stable"),
                "parse_rate": answers / sum(row["prompts"] for row in rows.values()),
                "tie_rate": sum(row["ties"] for row in rows.values()) / answers,
                "label_mass": mean([mass for row in rows.values() for mass in row["masses"]]),
                "trial_agreement": mean(agreements),
                "refusal_rate": None,
            }
            found = {name: value(summary, name, domain, variant=variant, language=language) for name in wanted}
            assert found == pytest.approx(wanted, abs=1e-9), (variant, language, domain)


def as_bytes(tables: tuple[pa.Table, pa.Table]) -> list[bytes]:
    found = []
    for table in tables:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        found.append(sink.getvalue().to_pybytes())
    return found


def test_rows_in_any_order_give_the_same_bytes(ask: Any, item: Any, tables: Any) -> None:
    run = random_run(ask, item, tables, 11)
    wanted = as_bytes(scored(run))
    for seed in range(5):
        draws = random.Random(seed)
        answers = run.answers.take(draws.sample(range(run.answers.num_rows), run.answers.num_rows))
        prompts = run.prompts.take(draws.sample(range(run.prompts.num_rows), run.prompts.num_rows))
        assert as_bytes(scored(type(run)(answers, prompts, run.items))) == wanted


@pytest.mark.parametrize("slice_rows", [1, 40, 200, 700])
def test_the_size_of_slices_changes_nothing(ask: Any, item: Any, tables: Any, slice_rows: int) -> None:
    run = random_run(ask, item, tables, 12)
    assert as_bytes(scored(run, slice_rows=slice_rows)) == as_bytes(scored(run))


@pytest.mark.parametrize("seed", range(3))
def test_renaming_the_options_of_both_sides_alike_changes_no_score(ask: Any, item: Any, tables: Any, seed: int) -> None:
    run = random_run(ask, item, tables, seed)

    def turned(values: Any) -> Any:
        return None if values is None else values[1:] + values[:1]

    answers = run.answers.to_pylist()
    for row in answers:
        row["option_logprobs"] = turned(row["option_logprobs"])
    prompts = run.prompts.to_pylist()
    for row in prompts:
        row["permutation"] = [(option - 1) % len(row["permutation"]) for option in row["permutation"]]
    renamed = type(run)(
        pa.Table.from_pylist(answers, schema=schema.ANSWERS), pa.Table.from_pylist(prompts, schema=schema.PROMPTS), run.items
    )
    before, after = scored(run, resamples=0)[1], scored(renamed, resamples=0)[1]
    unchanged = ("cs", "cs_debiased", "cs_stable", "pcs", "pcs_debiased", "tie_rate", "stable_word", "position_word", "position_first_deed")
    for metric in unchanged:
        where = {"variant": "direct", "language": "en"}
        assert value(after, metric, **where) == pytest.approx(value(before, metric, **where), abs=1e-9)


def test_the_tables_have_the_columns_of_the_contract_and_are_sorted(ask: Any, item: Any, tables: Any) -> None:
    items, summary = scored(random_run(ask, item, tables, 13), checkpoints=("z", "a"))
    assert items.schema == schema.SCORES_ITEMS
    assert summary.schema == schema.SCORES_SUMMARY
    keys = pl.DataFrame(items).select("checkpoint_id", "variant", "language", "trial", "item_id")
    numbered = keys.with_columns(item=pl.col("item_id").str.slice(1).cast(pl.Int64), turn=pl.col("checkpoint_id") == "a")
    assert numbered.equals(numbered.sort("turn", "variant", "language", "item", "trial"))
    assert keys.is_unique().all()
    assert pl.DataFrame(summary)["domain"].unique(maintain_order=True)[0] == "all"


def test_ten_answers_worked_by_hand(ten: Any) -> None:
    items, summary = scored(ten)
    rows = pl.DataFrame(items).select(
        "item_id", "word_option", "deed_option", "match", "word_correct", "parse_status_word", "parse_status_deed", "flags"
    )
    assert rows.rows() == [
        ("a", 0, 0, 0.5, True, "ok", "ok", []),
        ("b", 1, 1, 0.75, False, "ok", "ok", ["repeated-option"]),
        ("c", None, None, None, None, "ok", "error", []),
    ]
    assert value(summary, "cs") == 0.625
    assert value(summary, "cs", "EthV") == 0.75
    assert value(summary, "cs_lower") == pytest.approx(1.25 / 3)
    assert value(summary, "cs_upper") == 0.75
    assert value(summary, "cs_stable") is None
    assert value(summary, "trial_agreement") is None
    assert value(summary, "parse_rate") == 0.9
    assert value(summary, "accuracy_word") == 0.5
    assert value(summary, "suspicious_rate") == pytest.approx(1 / 3)


def test_a_run_that_is_not_finished_counts_what_is_missing(ten: Any) -> None:
    answers = ten.answers.filter(pa.compute.invert(pa.compute.match_substring(ten.answers["prompt_id"], "a-deed")))
    items, summary = scored(type(ten)(answers, ten.prompts, ten.items))
    assert items.select(["match", "parse_status_deed"]).to_pylist()[0] == {"match": None, "parse_status_deed": "missing"}
    assert value(summary, "parse_rate") == 0.7
    assert (value(summary, "cs_lower"), value(summary, "cs_upper")) == (0.25, pytest.approx(2.75 / 3))


def test_a_checkpoint_without_answers_has_no_rows(ten: Any) -> None:
    items, summary = scored(type(ten)(ten.answers.slice(0, 0), ten.prompts, ten.items))
    assert (items.num_rows, summary.num_rows) == (0, 0)


def test_answers_that_are_all_errors_are_undefined_not_0(ask: Any, tables: Any) -> None:
    asked = [ask(name, side, (0, 1), None, error="?") for name in "ab" for side in ("word", "deed")]
    items, summary = scored(tables(asked))
    assert items["word_probs"].to_pylist() == [None, None]
    assert [value(summary, metric) for metric in ("cs", "pcs", "tie_rate", "label_mass")] == [None] * 4
    assert [value(summary, metric) for metric in ("parse_rate", "cs_lower", "cs_upper")] == [0.0, 0.0, 1.0]


def test_an_answer_that_is_there_twice_is_refused(ten: Any) -> None:
    doubled = type(ten)(pa.concat_tables([ten.answers, ten.answers.slice(4, 1)]), ten.prompts, ten.items)
    with pytest.raises(
        RunDirError, match=r"checkpoint c: 1 are there twice, the first for prompt b-word-direct-en-01, trial 0; two shards"
    ):
        scored(doubled)


def test_answers_of_different_weights_under_one_name_are_refused(ten: Any) -> None:
    other = pa.Table.from_pylist([row | {"checkpoint_digest": "d2"} for row in ten.answers.to_pylist()], schema=schema.ANSWERS)
    mixed = type(ten)(pa.concat_tables([ten.answers.slice(0, 5), other.slice(5)]), ten.prompts, ten.items)
    with pytest.raises(RunDirError, match=r"checkpoint c: they come from different weights \(digests d1, d2\)"):
        scored(mixed)


def test_an_item_that_is_not_in_the_item_table_is_still_scored(ten: Any) -> None:
    items, _ = scored(type(ten)(ten.answers, ten.prompts, ten.items.slice(1)))
    assert sorted(items["item_id"].to_pylist()) == ["a", "b", "c"]
