"""From answers to all metric tables: the product, DuckDB with the same aggregation, and a pandas loop of the published kind on a sample.

    .venv/bin/python benchmarks/bench_metrics.py [--rows 1000000] [--checkpoints 10] [--repeats 1] [--others PYTHON] [--scratch DIR]

A run directory is generated: two options, both orders, both sides, so an item has four answers a checkpoint; one log-probability in
eight lies on the grid that makes bfloat16 engines tie. Each contestant is a process of its own and reads the same Arrow files:

- `wdct`: `write_scores` as `wdct score` runs it: scores/items.arrow and every metric of the summary, with intervals. Also without
  intervals (`--resamples 0`), which is nearer to what the others do, and `write_comparisons`, the tables that follow.
- `duckdb`: one SQL statement for each item's match and PCS (written as Parquet, zstd), one for CS and PCS by checkpoint and domain.
- `pandas`: the items of a sample one row after the other (`iterrows`), as published evaluation scripts do.

DuckDB and pandas are no dependencies of the project: `--others` names a Python that has duckdb, pandas and pyarrow. Peak memory is the
largest resident set of the process, mapped pages of the files included. Before a ratio counts, CS and PCS must agree to 1e-9.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOMAINS = ("Opinion", "NonEthV", "EthV", "Theory")
TOLERANCE = 1e-9
PROMPTS_AN_ITEM = 4

ITEMS_SQL = """
COPY (
    WITH said AS (
        SELECT checkpoint_id, variant, language, trial, item_id, domain, side, permutation[1] AS first,
               1 / (1 + exp(option_logprobs[2] - option_logprobs[1])) AS p,
               CASE WHEN option_logprobs[1] > option_logprobs[2] THEN 1.0
                    WHEN option_logprobs[1] < option_logprobs[2] THEN 0.0 ELSE 0.5 END AS s
        FROM answers JOIN prompts USING (prompt_id)
        WHERE error IS NULL
    ), sides AS (
        SELECT checkpoint_id, variant, language, trial, item_id, domain,
               avg(s) FILTER (side = 'word') AS ws, avg(s) FILTER (side = 'deed') AS ds,
               max(p) FILTER (side = 'word' AND first = 0) AS w0, max(p) FILTER (side = 'word' AND first = 1) AS w1,
               max(p) FILTER (side = 'deed' AND first = 0) AS d0, max(p) FILTER (side = 'deed' AND first = 1) AS d1
        FROM said GROUP BY ALL
    )
    SELECT checkpoint_id, variant, language, trial, item_id, domain, ws * ds + (1 - ws) * (1 - ds) AS match,
           (pcs(w0, d0) + pcs(w0, d1) + pcs(w1, d0) + pcs(w1, d1)) / 4 AS pcs
    FROM sides
) TO '{target}' (FORMAT parquet, COMPRESSION zstd)
"""

MACROS = """
CREATE MACRO xlogx(x) AS CASE WHEN x > 0 THEN x * log2(x) ELSE 0 END;
CREATE MACRO pcs(p, q) AS 1 - (xlogx(p) + xlogx(1 - p) + xlogx(q) + xlogx(1 - q)) / 2
                            + xlogx((p + q) / 2) + xlogx(1 - (p + q) / 2);
"""


def generate(run: Path, rows: int, checkpoints: int, shard_rows: int) -> int:
    """Writes a run directory with about `rows` answers; returns how many."""
    import numpy as np
    import pyarrow as pa

    from wdct_dist.tables import items_file, prompts_file, schema
    from wdct_dist.tables.shards import ShardKey
    from wdct_dist.tables.storage import Store

    generator = np.random.default_rng(0)
    store = Store(str(run))
    store.make_root()
    num_items = max(1, rows // (PROMPTS_AN_ITEM * checkpoints))
    num_prompts = num_items * PROMPTS_AN_ITEM
    hex_digits = np.array([list(f"{byte:02x}".encode()) for byte in range(256)], dtype=np.uint8)

    def ids(count: int) -> Any:
        """Random ids of 20 hex digits, as strings in Arrow."""
        characters = hex_digits[generator.integers(0, 256, size=(count, 10))].tobytes()
        offsets = np.arange(0, 20 * count + 1, 20, dtype=np.int32)
        return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(characters))

    def table(columns: dict[str, Any], table_schema: Any, count: int) -> Any:
        arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in table_schema]
        return pa.Table.from_arrays(
            [pa.array(array, field.type) for array, field in zip(arrays, table_schema, strict=True)], schema=table_schema
        )

    def lists(values: Any) -> Any:
        offsets = np.arange(0, values.size + 1, values.shape[1], dtype=np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.reshape(-1)))

    def one(value: Any, kind: Any, count: int) -> Any:
        return pa.array([value], kind).take(pa.array(np.zeros(count, dtype=np.int8)))

    def write(name: str, table_schema: Any, pieces: Iterator[Any]) -> None:
        with store.writing(name) as stream, pa.ipc.new_file(stream, table_schema, options=schema.IPC_OPTIONS) as writer:
            for piece in pieces:
                writer.write_table(piece)

    item_ids = pa.array([f"item-{number:09}" for number in range(num_items)])
    domains = pa.array([DOMAINS[number % 4] for number in range(num_items)])
    items = {"item_id": item_ids, "domain": domains, "num_options": one(2, pa.uint8(), num_items)}
    write(items_file.NAME, schema.ITEMS, iter([table(items, schema.ITEMS, num_items)]))
    prompt_ids = ids(num_prompts)

    def prompts(start: int) -> Any:
        places = np.arange(start, min(start + shard_rows, num_prompts))
        item, side, order = places // 4, places // 2 % 2, places % 2
        columns = {
            "prompt_id": prompt_ids.slice(start, len(places)),
            "item_id": item_ids.take(pa.array(item)),
            "domain": domains.take(pa.array(item)),
            "side": pa.array(["word", "deed"]).take(pa.array(side)),
            "variant": one("direct", pa.string(), len(places)),
            "language": one("en", pa.string(), len(places)),
            "permutation": lists(np.stack([order, 1 - order], axis=1).astype(np.uint8)),
            "labels": one(["A", "B"], pa.list_(pa.string()), len(places)),
            "messages": one([{"role": "user", "content": "?" * 400}], schema.PROMPTS.field("messages").type, len(places)),
            "mode": one("score", pa.string(), len(places)),
        }
        return table(columns, schema.PROMPTS, len(places))

    starts = range(0, num_prompts, shard_rows)
    write(prompts_file.NAME, schema.PROMPTS, (prompts(start) for start in starts))
    for checkpoint, digest in digests(checkpoints).items():
        for start in starts:
            chosen = prompt_ids.slice(start, min(shard_rows, num_prompts - start))
            count = len(chosen)
            # An opinion of the item, another of each prompt: words and deeds agree more often than by chance.
            logits = np.repeat(generator.normal(size=(-(-count // 4), 2)), 4, axis=0)[:count] + generator.normal(size=(count, 2))
            coarse = generator.random(count) < 0.125
            logits[coarse] = np.round(logits[coarse])
            mass = 0.5 + generator.random(count) / 2
            logprobs = logits - np.logaddexp(logits[:, 0], logits[:, 1])[:, None] + np.log(mass)[:, None]
            columns = {
                "checkpoint_id": one(checkpoint, pa.string(), count),
                "checkpoint_digest": one(digest, pa.string(), count),
                "prompt_id": chosen,
                "trial": one(0, pa.uint16(), count),
                "option_logprobs": lists(logprobs),
                "label_mass": pa.array(mass),
                "text": one("A", pa.string(), count),
                "rendered_digest": ids(count),
                "finish_reason": one("length", pa.string(), count),
                "num_prompt_tokens": one(121, pa.int32(), count),
                "num_cached_tokens": one(64, pa.int32(), count),
                "num_output_tokens": one(1, pa.int32(), count),
            }
            name = ShardKey(digest, 0, start, start + count).name(checkpoint)
            write(name, schema.ANSWERS, iter([table(columns, schema.ANSWERS, count)]))
    return num_prompts * checkpoints


def digests(checkpoints: int) -> dict[str, str]:
    return {f"checkpoint-{number:03}": f"{number:064x}"[::-1] for number in range(checkpoints)}


def wdct(run: Path, checkpoints: int, resamples: int) -> dict[str, Any]:
    """The product's tables; CS and PCS are read from its summary."""
    from wdct_dist.config.schema import MetricsConfig
    from wdct_dist.metrics.run_comparisons import write_comparisons
    from wdct_dist.metrics.run_scores import write_scores
    from wdct_dist.tables.storage import Store

    store, settings = Store(str(run)), MetricsConfig(bootstrap_resamples=resamples)
    began = time.perf_counter()
    summary = write_scores(store, digests(checkpoints), settings)
    seconds, peak = time.perf_counter() - began, peak_bytes()
    began = time.perf_counter()
    write_comparisons(store, summary, digests(checkpoints), settings)
    rows = summary.select("checkpoint_id", "domain", "metric", "value").iter_rows()
    figures = {f"{name} {domain} {metric}": value for name, domain, metric, value in rows if metric in ("cs", "pcs")}
    return {
        "seconds": seconds,
        "peak_bytes": peak,
        "figures": figures,
        "comparisons_seconds": time.perf_counter() - began,
        "comparisons_peak_bytes": peak_bytes(),
    }


def duckdb(run: Path) -> dict[str, Any]:
    """CS and PCS by SQL over the same Arrow files."""
    import duckdb as engine
    import pyarrow.dataset as ds

    # DuckDB finds both by the names of these variables.
    answers = ds.dataset(run / "answers", format="ipc")
    prompts = ds.dataset(run / "prompts.arrow", format="ipc")
    began = time.perf_counter()
    connection = engine.connect()
    connection.execute(f"SET memory_limit = '6GB'; SET temp_directory = '{run / 'spill'}'; SET preserve_insertion_order = false;" + MACROS)
    connection.register("answers", answers)
    connection.register("prompts", prompts)
    target = run / "duckdb.parquet"
    connection.execute(ITEMS_SQL.format(target=target))
    found = connection.execute(
        f"SELECT checkpoint_id, coalesce(domain, 'all'), avg(match), avg(pcs) FROM '{target}' "
        "GROUP BY GROUPING SETS ((checkpoint_id, domain), (checkpoint_id))"
    ).fetchall()
    figures = {f"{name} {domain} {metric}": value for name, domain, cs, pcs in found for metric, value in (("cs", cs), ("pcs", pcs))}
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes(), "figures": figures}


def pandas(run: Path, sample_rows: int) -> dict[str, Any]:
    """A loop over rows: the answers of the first checkpoint to the first prompts."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.dataset as ds

    # Reading is not what is compared: the sample is cut out before the clock starts.
    prompts = ds.dataset(run / "prompts.arrow", format="ipc").head(sample_rows, columns=["prompt_id", "item_id", "side"])
    parts, left = [], sample_rows
    for shard in sorted((run / "answers").glob("*.arrow")):
        with pa.OSFile(str(shard)) as file:
            parts.append(pa.ipc.open_file(file).read_all().select(["prompt_id", "option_logprobs"]).slice(0, left))
        left -= len(parts[-1])
        if left <= 0:
            break
    answers = pa.concat_tables(parts)
    began = time.perf_counter()
    frame = pd.merge(answers.to_pandas(), prompts.to_pandas(), on="prompt_id")
    sides: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for _, row in frame.iterrows():
        weights = [math.exp(value) for value in row["option_logprobs"]]
        share = weights[0] / sum(weights)
        answer = 1.0 if weights[0] > weights[1] else 0.0 if weights[0] < weights[1] else 0.5
        sides.setdefault(row["item_id"], {"word": [], "deed": []})[row["side"]].append((share, answer))
    matches, scores = [], []
    for item in sides.values():
        pairs = [(word, deed) for word in item["word"] for deed in item["deed"]]
        matches.append(statistics.fmean(w * d + (1 - w) * (1 - d) for (_, w), (_, d) in pairs))
        scores.append(statistics.fmean(1 - divergence(p, q) for (p, _), (q, _) in pairs))
    figures = {"sample cs": statistics.fmean(matches), "sample pcs": statistics.fmean(scores)}
    return {"seconds": time.perf_counter() - began, "peak_bytes": peak_bytes(), "figures": figures, "rows": len(frame), "items": len(sides)}


def divergence(p: float, q: float) -> float:
    """Jensen-Shannon divergence in base 2 of (p, 1 - p) and (q, 1 - q)."""

    def entropy(x: float) -> float:
        return -sum(value * math.log2(value) for value in (x, 1 - x) if value > 0)

    return entropy((p + q) / 2) - (entropy(p) + entropy(q)) / 2


def sample_figures(run: Path, num_items: int) -> dict[str, float]:
    """CS and PCS of the items that the sample holds, from scores/items.arrow."""
    import polars as pl

    means = pl.scan_ipc(run / "scores" / "items.arrow").head(num_items).select(pl.col("match", "pcs").mean()).collect().row(0)
    return {"sample cs": means[0], "sample pcs": means[1]}


def peak_bytes() -> int:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def contestant(python: str, name: str, options: argparse.Namespace, run: Path, resamples: int = 0) -> dict[str, Any]:
    command = [python, __file__, "--child", name, "--run", str(run), "--checkpoints", str(options.checkpoints)]
    command += ["--resamples", str(resamples), "--sample-rows", str(options.sample_rows)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def furthest(found: dict[str, float], expected: dict[str, float]) -> float:
    """The largest disagreement; every figure must be there."""
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())[:5]
    return max(abs(found[name] - expected[name]) for name in expected)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--shard-rows", type=int, default=100_000)
    parser.add_argument("--sample-rows", type=int, default=20_000)
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--others", default=sys.executable, help="a Python with duckdb, pandas and pyarrow")
    parser.add_argument("--scratch", type=Path, help="where the run directory is generated (50 bytes a row); removed at the end")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--run", type=Path, help=argparse.SUPPRESS)
    if "--child" in sys.argv:  # in another Python, which has nothing of this project
        options = parser.parse_args()
    else:
        from record import arguments

        options = arguments(parser)
    if options.child == "wdct":
        print(json.dumps(wdct(options.run, options.checkpoints, options.resamples)))
    elif options.child == "duckdb":
        print(json.dumps(duckdb(options.run)))
    elif options.child == "pandas":
        print(json.dumps(pandas(options.run, options.sample_rows)))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    from record import figure, write

    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        run = Path(scratch) / "run"
        began = time.perf_counter()
        rows = generate(run, options.rows, options.checkpoints, options.shard_rows)
        # whole items of one checkpoint
        options.sample_rows = min(options.sample_rows, rows // options.checkpoints) // PROMPTS_AN_ITEM * PROMPTS_AN_ITEM
        size = sum(file.stat().st_size for file in run.rglob("*.arrow"))
        print(
            f"{rows:,} answers, {options.checkpoints} checkpoints, {rows // options.checkpoints // PROMPTS_AN_ITEM:,} items; "
            f"{size / 1e9:.2f} GB, generated in {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(options.repeats):
            whole = contestant(sys.executable, "wdct", options, run, options.resamples)
            report(f"wdct, {options.resamples} resamples", whole, rows, found)
            report("wdct, comparisons", {name: whole[f"comparisons_{name}"] for name in ("seconds", "peak_bytes")}, rows, found)
            bare = contestant(sys.executable, "wdct", options, run, 0)
            report("wdct, no intervals", bare, rows, found)
            sql = contestant(options.others, "duckdb", options, run)
            report("duckdb", sql, rows, found)
            loop = contestant(options.others, "pandas", options, run)
            report("pandas loop", loop, loop["rows"], found)
            apart = {
                "duckdb": furthest(sql["figures"], whole["figures"]),
                "pandas loop": furthest(loop["figures"], sample_figures(run, loop["items"])),
                "no intervals": furthest(bare["figures"], whole["figures"]),
            }
            print("largest disagreement: " + ", ".join(f"{name} {value:.1e}" for name, value in apart.items()), flush=True)
            assert max(apart.values()) < TOLERANCE, "the figures do not agree: no ratio counts"
        figures = []
        for name, runs in found.items():
            figures.append(figure(f"{name}: time", [one["seconds"] for one in runs], "s"))
            figures.append(figure(f"{name}: rows a second", [one["rows"] / one["seconds"] for one in runs], "/s"))
            figures.append(figure(f"{name}: peak memory", [one["peak_bytes"] / 1e9 for one in runs], "GB"))
        for ours in (f"wdct, {options.resamples} resamples", "wdct, no intervals"):
            for theirs in ("duckdb", "pandas loop"):
                pairs = zip(found[theirs], found[ours], strict=True)
                ratios = [one["seconds"] / one["rows"] / (other["seconds"] / other["rows"]) for one, other in pairs]
                figures.append(figure(f"{theirs} / {ours}, time a row", ratios))
        write(options, f"metrics-{options.rows}", figures, found)


def report(name: str, one: dict[str, Any], rows: int, found: dict[str, list[dict[str, Any]]]) -> None:
    found.setdefault(name, []).append({"seconds": one["seconds"], "peak_bytes": one["peak_bytes"], "rows": rows})
    speed = f"{rows / one['seconds']:,.0f} rows/s"
    print(f"{name:24} {one['seconds']:8.1f} s {speed:>20}   peak {one['peak_bytes'] / 1e9:5.2f} GB", flush=True)


if __name__ == "__main__":
    main()
