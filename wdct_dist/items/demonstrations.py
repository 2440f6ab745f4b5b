"""Demonstrations to draw from: questions that stand before another one, each with a belief and the option that it leads to.

Two sources: the bundled items, with beliefs in Chinese for some of them, and a CSV of the public test's form with the columns `id`,
`Type`, `Prompt`, `Question` (stem, then one line an option, `A. text`) and `Belief` (`Belief: …`, then `Answer: A`). The column
`Prompt` is not read: a demonstration is asked in the words of the question that it stands before.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wdct_dist.errors import DataError
from wdct_dist.items.load import BUNDLED, read_records, split_options
from wdct_dist.items.record import option_of_label, shown
from wdct_dist.items.types import SIDES, Item, Question, Side

CHINESE = BUNDLED.with_name("demonstrations_zh.jsonl")
"""Beliefs of bundled demonstrations in Chinese; question and option are those of the item."""

COLUMNS = ("id", "Type", "Prompt", "Question", "Belief")

DOMAIN_OF_TYPE = {"Value": "NonEthV", "Evalue": "EthV"}
"""The public demo.csv names two domains by other words than the public test does; the ids are the same."""

_REPLY = re.compile(r"(?:Belief:\s*)?(?P<belief>.*\S)\s*\n\s*Answer:\s*(?P<label>[A-Z])\.?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Shot:
    """A question with its demonstration."""

    item_id: str
    domain: str
    side: Side | None
    """None: good for both."""
    language: str
    question: Question
    belief: str
    option: int


def load_demonstrations(setting: str) -> tuple[Shot, ...]:
    """The demonstrations that `cot.demonstrations` means: `bundled`, or a CSV. Raises DataError with every fault of the file."""
    return tuple(_bundled() if setting == "bundled" else _of_csv(Path(setting).expanduser()))


def _bundled() -> Iterator[Shot]:
    items: dict[str, Item] = {}
    for record in read_records(BUNDLED):
        assert record.item is not None
        items[record.item.item_id] = record.item
    for item in items.values():
        for side in SIDES:
            demonstration = item.demonstrations[side]
            yield Shot(item.item_id, item.domain, side, "en", item.questions[side], demonstration.belief, demonstration.option)
    for line in CHINESE.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        item = items[entry["item_id"]]
        translated: Side = entry["side"]
        question = item.question(translated, "zh")
        assert question is not None
        yield Shot(item.item_id, item.domain, translated, "zh", question, entry["belief"], item.demonstrations[translated].option)


def _of_csv(path: Path) -> list[Shot]:
    where = f"cot.demonstrations: {shown(str(path), None)}"
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = csv.DictReader(stream, strict=True)
            lacking = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if lacking:
                came = shown(", ".join(rows.fieldnames or ()), 200) or "none"
                raise DataError(f"{where} lacks {', '.join(lacking)}; its columns are {came}; it must have {', '.join(COLUMNS)}.")
            read = [(rows.line_num, _shot(row)) for row in rows]
    except FileNotFoundError:
        raise DataError(f"{where} is not there; give a CSV with the columns {', '.join(COLUMNS)}, or `bundled`.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where} cannot be read as CSV in UTF-8: {error}.") from None
    faults = [f"  to line {line}: {shot}" for line, shot in read if isinstance(shot, str)]
    if faults:
        raise DataError("\n".join([f"{where} has rows that are no demonstrations:", *faults]))
    shots = [shot for _, shot in read if isinstance(shot, Shot)]
    if not shots:
        raise DataError(f"{where} has no rows; give at least one demonstration, or `bundled`.")
    return shots


def _shot(row: dict[str | None, str | None]) -> Shot | str:
    """The demonstration of a row, or what is wrong with it."""
    if row.get(None) is not None or any(row[column] is None for column in COLUMNS):
        return "has another number of columns than the first line"
    item_id, domain, _, question, reply = (str(row[column]).strip() for column in COLUMNS)
    stem, options = split_options(question)
    labels = [label for label, _ in options]
    if not stem.strip() or len(options) < 2 or [option_of_label(label) for label in labels] != list(range(len(options))):
        return f"Question must be a stem and options, one a line, from `A.` on; its labels are {', '.join(labels) or 'none'}"
    match = _REPLY.fullmatch(reply)
    if match is None:
        return f"Belief must be `Belief: …` and on its last line `Answer: A`; it is {shown(reply)}"
    option = labels.index(match["label"]) if match["label"] in labels else None
    if option is None:
        return f"Belief answers {match['label']}; the labels of the question are {', '.join(labels)}"
    texts = tuple(text for _, text in options)
    return Shot(item_id, DOMAIN_OF_TYPE.get(domain, domain), None, "en", Question(stem, texts), match["belief"], option)
