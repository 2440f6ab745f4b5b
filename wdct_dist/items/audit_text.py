"""The text of `wdct check`: every problem on a line, then counts, then whether the set can be evaluated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from wdct_dist.errors import EXIT_BAD_INPUT, EXIT_COMPLETE
from wdct_dist.items.load import locate, position_word, read_records
from wdct_dist.items.record import Severity, shown
from wdct_dist.items.types import DOMAINS
from wdct_dist.items.validate import AuditReport, Problem, audit

_COLUMNS = ("item", "side", "rule", "message")


def check(path_setting: str, extra_domains: Iterable[str] = ()) -> tuple[str, int]:
    """Audits the item file that `path_setting` means, as `data.path` does.

    Returns the report, and the exit code: 0 where the set can be evaluated, 2 where it has bad items or none at all.
    Raises DataError where the file as a whole cannot be read.
    """
    path = locate(path_setting)
    report = audit(read_records(path), (*DOMAINS, *extra_domains))
    return audit_text(report, path), EXIT_COMPLETE if is_evaluable(report) else EXIT_BAD_INPUT


def is_evaluable(report: AuditReport) -> bool:
    """Whether there are items and none of them is bad."""
    return report.num_items > 0 and report.num_bad == 0


def audit_text(report: AuditReport, path: Path) -> str:
    """The report as plain text, without a newline at its end."""
    lines = [f"{path}: {_counted(report.num_items, 'item')}", ""]
    lines += _problem_lines(report, "bad", position_word(path))
    lines += _problem_lines(report, "suspicious", position_word(path))
    lines += _counts("domain", {shown(domain) or "(none)": n for domain, n in report.num_by_domain.items()})
    lines += _counts("number of options", report.num_by_options)
    lines += _counts("language of translation", {shown(language): n for language, n in report.num_by_language.items()})
    return "\n".join([*lines, _verdict(report)])


def record_name(item_id: str | None, position: int, word: str) -> str:
    """How a record is named in a report: by its id, or by where it is."""
    return shown(item_id) if item_id else f"({word} {position})"


def _problem_lines(report: AuditReport, severity: Severity, word: str) -> list[str]:
    problems = [problem for problem in report.problems if problem.severity == severity]
    if not problems:
        return []
    rows = [_COLUMNS, *(_cells(problem, word) for problem in problems)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    num_items = len({problem.position for problem in problems})
    title = f"{severity}: {_counted(len(problems), 'problem')} in {_counted(num_items, 'item')}"
    return [title, *("  ".join([*map(str.ljust, row, widths), row[3]]) for row in rows), ""]


def _cells(problem: Problem, word: str) -> tuple[str, str, str, str]:
    name = record_name(problem.item_id, problem.position, word)
    place = f" ({word} {problem.position})" if problem.item_id else ""
    return name, problem.side or "-", problem.rule, f"{problem.message}{place}"


def _counts(name: str, counts: Mapping[str, int] | Mapping[int, int]) -> list[str]:
    if not counts:
        return []
    return [f"by {name}: " + ", ".join(f"{value} {count:,}" for value, count in counts.items())]


def _verdict(report: AuditReport) -> str:
    if report.num_items == 0:
        return "This set cannot be evaluated: it has no items."
    if report.num_bad:
        return f"This set cannot be evaluated as it is: {report.num_bad:,} of {_counted(report.num_items, 'item')} are bad."
    verb = "is" if report.num_suspicious == 1 else "are"
    doubtful = f"; {report.num_suspicious:,} {verb} suspicious" if report.num_suspicious else ""
    return f"This set can be evaluated: {_counted(report.num_items, 'item')}{doubtful}."


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
