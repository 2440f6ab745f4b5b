"""report.html from a run's tables: gathers what the template shows, and writes it into the run directory. The home of Jinja2.

Everything that comes from a model or a data file is text: the template escapes it, JSON in the page has no `<`, the script puts it into
the page as text, and the page's Content-Security-Policy lets only its own two scripts run (by their hashes) and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from wdct_dist.config.load import to_yaml
from wdct_dist.config.schema import Config, EngineKind
from wdct_dist.report import change
from wdct_dist.report.contents import headline
from wdct_dist.report.differences import difference_table
from wdct_dist.report.effects import effect_tables
from wdct_dist.report.engines import engines_table
from wdct_dist.report.facts import facts
from wdct_dist.report.findings import Findings, Scores
from wdct_dist.report.headline import consistency_table, domain_table, domains_of, position_table, trust_table
from wdct_dist.report.html import NAME, alignment_charts, charts
from wdct_dist.report.html.dots import DOTS_SEED, draw_dots
from wdct_dist.report.html.figures import asked, figures
from wdct_dist.report.html.item_sample import KINDS, SAMPLE_SEED, draw_sample
from wdct_dist.report.incidents import incidents_table
from wdct_dist.report.layout import Table
from wdct_dist.report.rows import ALL, Row, families_as_one, rows_of
from wdct_dist.report.spending import spending_table
from wdct_dist.report.standing import standings
from wdct_dist.report.steadiness import language_table, repetition, steadiness_table
from wdct_dist.report.throughput import throughput_table
from wdct_dist.report.timeline import sessions, sessions_table
from wdct_dist.report.warnings import warnings
from wdct_dist.tables.events import read_events
from wdct_dist.tables.manifest import once
from wdct_dist.tables.storage import Store
from wdct_dist.tables.usage import tokens_used

MOST_DIFFERENCES = 300
MOST_EFFECTS = 60
MOST_CHANGES = 300
"""Rows and tables that the page has; all are on disk."""


def write_page(store: Store, found: Findings) -> None:
    """Writes RUN/report.html."""
    store.write(NAME, render_page(store, found).encode())


def render_page(store: Store, found: Findings) -> str:
    """The page of a run whose tables are in `store`."""
    config, provenance = found.config, found.provenance
    rows = families_as_one(rows_of(found.scores.summary), config.variants)
    script, vega = _text("page.js"), charts.javascript()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_text), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":"), "allow_nan": False}
    return environment.get_template("page.html.j2").render(
        title=config.report.title,
        facts=[*facts(config, provenance), *found.notes],
        style=Markup(_text("style.css")),
        scripts=[Markup(vega), Markup(script)],
        policy=f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {_hash(vega)} {_hash(script)}",
        **(_answer(rows, found.scores, config) if rows else {"rows": 0}),
        **(_dots(store, rows) if rows else {}),
        **(_alignment(found, rows) if rows else {}),
        **_items(store, provenance),
        **_run(store, config, provenance),
    )


def _answer(rows: Sequence[Row], scores: Scores, config: Config) -> dict[str, Any]:
    """What the figures say, and how far to trust them."""
    domains, ways = domains_of(rows), list(dict.fromkeys(asked(row, rows) for row in rows))
    found = figures(rows)
    chances = [value for row in rows if (value := row.value("cs_chance")) is not None]
    effects = None if scores.effects is None else charts.marginal_effects(scores.effects)
    num_names = len({row.checkpoint_id for row in rows})
    known = {one["metric"] for one in found}
    return {
        "rows": len(rows),
        "figures": found,
        "domains": [ALL, *domains],
        "ways": ways,
        "headline": headline(rows, config),
        "repetition": repetition(rows, config.sampling.temperature),
        "warnings": warnings(scores.summary, config.report),
        "consistency_charts": [charts.consistency(metric, ways, num_names) for metric in ("cs", "pcs") if metric in known],
        "heat_map": charts.heat_map([ALL, *domains], ways, num_names, sum(chances) / len(chances)) if chances and "cs" in known else None,
        "training_charts": [
            charts.over_training(metric, ways) for metric in ("cs", "pcs") if metric in known and any("step" in one for one in found)
        ],
        "consistency_tables": [
            consistency_table(rows),
            *(domain_table(rows, domains, metric, intervals=True) for metric in ("cs", "pcs") if domains),
        ],
        "trust_tables": _there(trust_table(rows), position_table(rows), steadiness_table(rows)),
        "languages": language_table(rows),
        "differences_map": None if scores.differences is None else charts.differences_map(scores.differences, ways),
        "differences": None if scores.differences is None else difference_table(scores.differences, MOST_DIFFERENCES),
        "effects_chart": None if effects is None else effects[0],
        "effect_groups": [] if effects is None else effects[1],
        "effect_tables": [] if scores.effects is None else effect_tables(scores.effects, MOST_EFFECTS),
    }


def _dots(store: Store, rows: Sequence[Row]) -> dict[str, Any]:
    """Words against deeds, item by item."""
    dots = draw_dots(store)
    ways = {(row.variant, row.language): asked(row, rows) for row in rows}
    kept = ("checkpoint_id", "domain", "item_id", "word", "deed")
    groups = [{"asked": ways[group["variant"], group["language"]], **{key: group[key] for key in kept}} for group in dots.groups]
    shown = {group["checkpoint_id"] for group in groups}
    checkpoints = [name for name in dict.fromkeys(row.checkpoint_id for row in rows) if name in shown]
    return {
        "dots_chart": charts.words_against_deeds(groups, checkpoints, domains_of(rows), list(ways.values())) if groups else None,
        "dots_checkpoints": checkpoints,
        "num_dots": dots.num_drawn,
        "num_dot_rows": dots.num_rows,
        "dots_seed": DOTS_SEED,
    }


def _alignment(found: Findings, rows: Sequence[Row]) -> dict[str, Any]:
    """What training changed, how it went, and which checkpoint came from which; empty where the run has no alignment."""
    changed = found.scores.change
    told: dict[str, Any] = {"aligned": [], "change_charts": [], "change_tables": [], "change_tables_by_domain": []}
    if changed is not None and not changed.is_empty():
        ways = list(dict.fromkeys(asked(row, rows) for row in rows))
        told = {
            "aligned": change.sentences(changed),
            "change_charts": list(alignment_charts.changed_answers(changed, ways)),
            "change_tables": list(change.change_tables(changed, MOST_CHANGES)),
            "change_tables_by_domain": [
                table for domain in change.domains_of(changed) for table in change.change_tables(changed, MOST_CHANGES, domain)
            ],
        }
    return {
        **told,
        "training_logs": [] if found.training is None else list(alignment_charts.training_curves(found.training)),
        "family_tree": alignment_charts.family_tree(found.descents) if found.descents else None,
    }


def _items(store: Store, provenance: Mapping[str, Any]) -> dict[str, Any]:
    digests = {one["checkpoint_id"]: one["digest"] for one in provenance.get("checkpoints", [])}
    sample = draw_sample(store, digests)
    return {
        "num_cases": len(sample.cases),
        "num_item_rows": sample.num_rows,
        "sample_seed": SAMPLE_SEED,
        "kinds": KINDS,
        "sample": {"cases": sample.cases, "questions": sample.questions, "kinds": KINDS},
    }


def _run(store: Store, config: Config, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """How the figures came about."""
    events = read_events(store)
    worked = sessions(events)
    standing = standings(provenance, config.trials, once(store.names("answers")), events)
    return {
        "timeline": charts.timeline(worked) if worked else None,
        "worked": worked,
        "throughput": throughput_table(standing, events),
        "spending": spending_table(config.engine.endpoint, tokens_used(store)) if config.engine.kind is EngineKind.endpoint else None,
        "sessions": sessions_table(worked),
        "incidents": incidents_table(events),
        "engines": engines_table(events),
        "checkpoints": _checkpoints(provenance),
        "config": to_yaml(config),
        "provenance": provenance,
    }


def _checkpoints(provenance: Mapping[str, Any]) -> Table | None:
    columns = ("source", "digest", "architecture", "dtype", "kind")
    rows = tuple(
        (str(one["checkpoint_id"]), *(str(one[name]) if one.get(name) is not None else "-" for name in columns))
        for one in provenance.get("checkpoints", [])
    )
    return Table("Checkpoints", "checkpoint", columns, rows) if rows else None


def _there(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]


def _text(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
