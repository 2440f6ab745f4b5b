"""The items that an evaluation asks: audited, chosen, and read again from their file whenever they are wanted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from wdct_dist.config.schema import DataConfig, OnBadItem
from wdct_dist.errors import DataError
from wdct_dist.items.audit_text import audit_text, record_name
from wdct_dist.items.load import locate, position_word, read_records
from wdct_dist.items.record import shown
from wdct_dist.items.types import DOMAINS, Item
from wdct_dist.items.validate import Audit, AuditReport


@dataclass(frozen=True, slots=True)
class ItemSelection:
    """The chosen items of one file. Iterating reads the file again; no more than one item is held at a time."""

    path: Path
    report: AuditReport
    """Of the whole file, also of items that were not chosen."""
    num_items: int
    dropped: tuple[str, ...]
    """Bad items that were left out, by id, or by line or row where they have none."""
    num_by_language: dict[str, int]
    """Chosen items that can be asked in each language of `data.languages`."""
    domains: frozenset[str] | None = field(repr=False)
    bad_positions: frozenset[int] = field(repr=False)
    flags_by_position: dict[int, tuple[str, ...]] = field(repr=False)
    file_state: tuple[int, int] = field(repr=False)

    def __iter__(self) -> Iterator[Item]:
        """The chosen items in file order, with their flags. Raises as `placed` does."""
        return (item for _, item in self.placed())

    def placed(self) -> Iterator[tuple[int, Item]]:
        """The chosen items in file order, with their flags, each with its place among all records of the file, from 0.

        Raises DataError where the file is not the one that was audited any more.
        """
        changed = DataError(f"{self.path} was changed after it was checked; start the command again.")
        if _file_state(self.path) != self.file_state:
            raise changed
        num_left = self.num_items
        for place, record in enumerate(read_records(self.path)):
            if num_left == 0:
                return
            if record.item is None or record.position in self.bad_positions or not _is_wanted(record.item, self.domains):
                continue
            num_left -= 1
            yield place, replace(record.item, flags=self.flags_by_position.get(record.position, ()))
        if num_left:
            raise changed


def select_items(data: DataConfig) -> ItemSelection:
    """Audits the whole file that `data` names and chooses from it: domains first, then the limit.

    Raises DataError where an item of the file is bad and `data.on_bad_item` is `stop` (the message is the whole report),
    where no item has a domain or a language that was asked for, and where no items are left.
    """
    path = locate(data.path)
    state = _file_state(path)
    domains = None if data.domains is None else frozenset(data.domains)
    running = Audit((*DOMAINS, *data.extra_domains))
    bad_names: dict[int, str] = {}
    good_by_domain: Counter[str] = Counter()
    num_by_language: Counter[str] = Counter()
    num_items = 0
    for record in read_records(path):
        running.feed(record)
        if record.item is None or running.is_bad(record.position):
            bad_names[record.position] = record_name(record.item_id, record.position, position_word(path))
            continue
        good_by_domain[record.item.domain] += 1
        if _is_wanted(record.item, domains) and (data.limit is None or num_items < data.limit):
            num_items += 1
            num_by_language.update(["en", *record.item.translations])
    report = running.report()
    if bad_names and data.on_bad_item is OnBadItem.stop:
        raise DataError(f"{audit_text(report, path)}\nTo leave them out and evaluate the others: data.on_bad_item: drop")
    _check_choice(path, data, good_by_domain, num_by_language, num_items)
    return ItemSelection(
        path=path,
        report=report,
        num_items=num_items,
        dropped=tuple(bad_names.values()),
        num_by_language={language: num_by_language[language] for language in data.languages},
        domains=domains,
        bad_positions=frozenset(bad_names),
        flags_by_position={
            problem.position: running.flags(problem.position) for problem in report.problems if problem.severity == "suspicious"
        },
        file_state=state,
    )


def _check_choice(path: Path, data: DataConfig, good_by_domain: Counter[str], num_by_language: Counter[str], num_items: int) -> None:
    """Raises DataError where a part of the choice finds nothing."""
    if not good_by_domain:
        raise DataError(f"{path} has no item that can be evaluated; `wdct check` says why, item by item.")
    absent = [domain for domain in data.domains or () if domain not in good_by_domain]
    if absent:
        named = ", ".join(shown(domain) for domain in absent)
        there = ", ".join(f"{shown(domain)} ({count:,})" for domain, count in good_by_domain.items())
        raise DataError(f"data.domains: no item of {path} is of {named}; its domains are {there}.")
    if num_items == 0:
        raise DataError(f"No item of {path} is left after data.domains ({data.domains}) and data.limit ({data.limit}).")
    unspoken = [language for language in data.languages if num_by_language[language] == 0]
    if unspoken:
        there = ", ".join(f"{language} ({count:,})" for language, count in num_by_language.items())
        raise DataError(
            f"data.languages: none of the {num_items:,} chosen items of {path} has text in {', '.join(unspoken)}; "
            f"their languages are {there}."
        )


def _is_wanted(item: Item, domains: frozenset[str] | None) -> bool:
    return domains is None or item.domain in domains


def _file_state(path: Path) -> tuple[int, int]:
    """Size and time of the last change, which tell whether a file is still the one that was audited."""
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from None
    return status.st_size, status.st_mtime_ns
