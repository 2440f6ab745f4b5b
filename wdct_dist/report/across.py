"""Several runs beside each other: figures on the items they share, paired differences between them, settings that differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from wdct_dist.config.load import unlike
from wdct_dist.report.contents import WHOLE, Contents, Limits
from wdct_dist.report.differences import difference_table
from wdct_dist.report.findings import Findings
from wdct_dist.report.layout import Table
from wdct_dist.report.rows import Row, families_as_one, namer, rows_of

if TYPE_CHECKING:
    from wdct_dist.metrics.across_runs import AcrossRuns


def across(found: AcrossRuns, runs: Mapping[str, Findings], limits: Limits = WHOLE) -> Contents:
    """`runs` by the names that they have in `found`."""
    facts = [f"run {name}: {findings.config.run_dir}" for name, findings in runs.items()]
    facts.append(f"{found.num_items:,} items that all of them have in the same words; all figures are on these")
    facts += [f"run {name}: {number:,} more items are left out" for name, number in found.num_left_out.items() if number]
    rows = rows_of(found.summary)
    tables = [_figures(families_as_one(rows))] if rows else []
    if (table := difference_table(found.differences, limits.differences, "--format csv")) is not None:
        tables.append(table)
    tables += list(_unlike(runs))
    return Contents("Runs compared", tuple(facts), tuple(tables), (), tuple(_warnings(found, runs)))


def _figures(rows: Sequence[Row]) -> Table:
    name = namer(rows)
    cells = [
        (name(row), row.figure("cs").with_interval, row.figure("pcs").with_interval, f"{row.figure('cs').num_items:,}") for row in rows
    ]
    return Table("Consistency on the shared items", "run: checkpoint", ("CS [interval]", "PCS [interval]", "items"), tuple(cells))


def _unlike(runs: Mapping[str, Findings]) -> Iterator[Table]:
    configs = [findings.config for findings in runs.values()]
    settings = [(key, *map(_shown, values)) for key, values in unlike(configs).items()]
    facts = [_facts(findings.provenance) for findings in runs.values()]
    settings += [
        (key, *(_shown(one.get(key)) for one in facts))
        for key in dict.fromkeys(key for one in facts for key in one)
        if any(one.get(key) != facts[0].get(key) for one in facts)
    ]
    if settings:
        yield Table("What differs beside the answers", "setting", tuple(runs), tuple(settings))


def _facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What is not in the configuration and decides answers all the same."""
    versions: Mapping[str, Any] = next((one["versions"] for one in reversed(provenance.get("sessions", [])) if "versions" in one), {})
    return {
        "data (sha256)": provenance.get("data", {}).get("sha256", "")[:12],
        **{f"version of {name}": version for name, version in versions.items()},
        **_digests(provenance),
    }


def _digests(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {f"digest of {one['checkpoint_id']}": one["digest"][:12] for one in provenance.get("checkpoints", [])}


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _warnings(found: AcrossRuns, runs: Mapping[str, Findings]) -> Iterator[str]:
    if not found.num_items:
        yield "The runs share no item, by its id and in the same words: nothing is compared. Evaluate them on the same data.path."
    elif found.differences.is_empty():
        yield "No variant and language is in more than one run: nothing is compared."
    for name, findings in runs.items():
        yield from (f"run {name}: {note}" for note in findings.notes)
