"""The plain form of an item, one JSON object, to and from `Item`; and what reading one file entry gives.

    {"item_id": "opinion-01", "domain": "Opinion",
     "word": {"question": "…", "options": ["…", "…"]}, "deed": {"question": "…", "options": ["…", "…"]},
     "correct_option": null,
     "translations": {"zh": {"word": {…}, "deed": {…}}},
     "paraphrases": {"word": [{…}, {…}], "deed": [{…}, {…}]},
     "demonstrations": {"word": {"belief": "…", "option": 0}, "deed": {…}}}

The first four keys are required. `correct_answer`, a label such as "A", may stand in the place of `correct_option`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from wdct_dist.errors import DataError
from wdct_dist.items.types import SIDES, Demonstration, Item, Question, Side

Severity = Literal["bad", "suspicious"]
"""`bad`: the item cannot be evaluated. `suspicious`: it can, and its answers may mean nothing."""

REQUIRED = ("item_id", "domain", "word", "deed")
OPTIONAL = ("correct_option", "correct_answer", "translations", "paraphrases", "demonstrations", "flags")

_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8})*")
_SHOWN_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong with a record that shows while it is read."""

    side: Side | None
    rule: str
    message: str
    severity: Severity = "bad"


@dataclass(frozen=True, slots=True)
class Record:
    """One entry of an item file."""

    position: int
    """Line on which it begins (CSV, JSONL) or row (Parquet, Arrow), from 1."""
    item_id: str | None
    """Its id, where at least that could be read."""
    item: Item | None
    """None where the record cannot be read as an item; then `faults` says why."""
    faults: tuple[Fault, ...] = ()


def shown(text: str, limit: int | None = _SHOWN_LENGTH) -> str:
    """`text` on one line, as it can be printed anywhere: escapes for what is not printable, cut after `limit` characters."""
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode("ascii") for c in text)


def option_of_label(label: str) -> int | None:
    """The option index that a label of the data means (A is 0), or None for what is not a label."""
    return ord(label) - ord("A") if len(label) == 1 and "A" <= label <= "Z" else None


def is_language(code: str) -> bool:
    """Whether a translation may be in it: a code such as zh or pt-BR; not en, which is the item's own text."""
    return code != "en" and _LANGUAGE.fullmatch(code) is not None


def item_to_record(item: Item) -> dict[str, Any]:
    """The item as a JSON object, always with every key; `item_from_record` gives back an equal item."""
    return {
        "item_id": item.item_id,
        "domain": item.domain,
        "word": _plain_question(item.questions["word"]),
        "deed": _plain_question(item.questions["deed"]),
        "correct_option": item.correct_option,
        "translations": {
            language: {side: _plain_question(question) for side, question in sides.items()} for language, sides in item.translations.items()
        },
        "paraphrases": {side: [_plain_question(question) for question in questions] for side, questions in item.paraphrases.items()},
        "demonstrations": {
            side: {"belief": demonstration.belief, "option": demonstration.option} for side, demonstration in item.demonstrations.items()
        },
        "flags": list(item.flags),
    }


def item_from_record(record: Mapping[str, Any]) -> Item:
    """The item that `record` describes. White space around texts is stripped.

    Raises DataError where it is not in the form above; whether the item can be evaluated is for `validate` to say.
    """
    read = read_record(0, record)
    if read.item is None:
        named = f"item {shown(read.item_id)}" if read.item_id else "an item without an id"
        raise DataError(f"{named}: {'; '.join(fault.message for fault in read.faults)}.")
    return read.item


def read_record(position: int, raw: object) -> Record:
    """The record of one decoded JSON object, or of one row of nested columns; never raises."""
    reader = RecordReader()
    entry = reader.mapping(raw, "the record", None)
    if entry is None:
        return reader.record(position, None, None)
    absent = [key for key in REQUIRED if entry.get(key) is None]
    if absent:
        came = shown(", ".join(str(key) for key, value in entry.items() if value is not None), None) or "nothing"
        reader.fault(None, f"lacks {', '.join(absent)}; it has {came}")
    for key in entry:
        reader.check_key(key)
    item_id = reader.name(entry.get("item_id"), "item_id")
    item = Item(
        item_id=item_id,
        domain=reader.name(entry.get("domain"), "domain"),
        questions={side: reader.question(entry[side], "the question", side) for side in SIDES if side not in absent},
        correct_option=reader.correct_option(entry.get("correct_option"), entry.get("correct_answer")),
        translations=reader.translations(entry.get("translations")),
        paraphrases=reader.paraphrases(entry.get("paraphrases")),
        demonstrations=reader.demonstrations(entry.get("demonstrations")),
        flags=tuple(str(flag) for flag in reader.sequence(entry.get("flags"), "flags", None)),
    )
    return reader.record(position, item_id, item)


def unreadable(position: int, message: str, rule: str = "unparsable") -> Record:
    """The record of an entry of which nothing could be read."""
    return Record(position, None, None, (Fault(None, rule, message),))


@dataclass(slots=True)
class RecordReader:
    """Reads the parts of one record and gathers every fault, so that one report names them all."""

    faults: list[Fault] = field(default_factory=list)

    def record(self, position: int, item_id: str | None, item: Item | None) -> Record:
        """The record, without its item where a part of it could not be read."""
        readable = all(fault.rule not in ("unparsable", "encoding") for fault in self.faults)
        return Record(position, item_id or None, item if readable else None, tuple(self.faults))

    def fault(self, side: Side | None, message: str, rule: str = "unparsable", severity: Severity = "bad") -> None:
        self.faults.append(Fault(side, rule, message, severity))

    def check_key(self, key: object) -> None:
        """Files may carry keys of their own; a key that is nearly one of ours is a slip that would lose its content."""
        if key in REQUIRED or key in OPTIONAL:
            return
        meant = difflib.get_close_matches(str(key), OPTIONAL, n=1, cutoff=0.8)
        if meant:
            self.fault(None, f"key {shown(str(key))} is not read; {meant[0]} is", "unknown-key", "suspicious")

    def mapping(self, value: object, where: str, side: Side | None) -> Mapping[str, Any] | None:
        if isinstance(value, Mapping):
            return value
        self.fault(side, f"{where} is {_kind(value)}; it must be an object")
        return None

    def sequence(self, value: object, where: str, side: Side | None) -> tuple[Any, ...]:
        if value is None:
            return ()
        if isinstance(value, (list, tuple)):
            return tuple(value)
        self.fault(side, f"{where} is {_kind(value)}; it must be a list")
        return ()

    def text(self, value: object, where: str, side: Side | None) -> str:
        if not isinstance(value, str):
            self.fault(side, f"{where} is {_kind(value)}; it must be text")
            return ""
        if not _is_unicode(value):
            self.fault(side, f"{where} has bytes that are not UTF-8: {shown(value)}", "encoding")
            return ""
        return value.strip()

    def name(self, value: object, where: str) -> str:
        """An id or a domain. Numbers are taken as they are written; an absent one was named already."""
        if value is None:
            return ""
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return self.text(value, where, None)

    def question(self, value: object, where: str, side: Side) -> Question:
        entry = self.mapping(value, where, side)
        if entry is None:
            return Question("", ())
        if entry.get("options") is None:
            came = shown(", ".join(str(key) for key in entry), None) or "nothing"
            self.fault(side, f"{where} lacks options; it has {came}")
        options = self.sequence(entry.get("options"), f"options of {where}", side)
        return Question(
            question=self.text(entry.get("question"), f"the text of {where}", side),
            options=tuple(self.text(option, f"option {i} of {where}", side) for i, option in enumerate(options)),
        )

    def correct_option(self, option: object, label: object) -> int | None:
        """From an index, from a label, or from both where they agree."""
        if isinstance(option, float) and option.is_integer():  # pandas writes whole numbers with gaps as floats
            option = int(option)
        if option is not None and (isinstance(option, bool) or not isinstance(option, int)):
            self.fault(None, f"correct_option is {_kind(option)}; it must be an option index or null", "correct-answer")
            return None
        if label is None or label == "":
            return option
        meant = option_of_label(label.strip()) if isinstance(label, str) else None
        if meant is None:
            came = shown(label) if isinstance(label, str) else _kind(label)
            self.fault(None, f"correct answer is {came}; it must be a label such as A, or empty", "correct-answer")
        elif option is not None and option != meant:
            self.fault(None, f"correct_option is {option} and correct_answer is {label}", "correct-answer")
        return meant

    def translations(self, value: object) -> dict[str, dict[Side, Question]]:
        found: dict[str, dict[Side, Question]] = {}
        for language, sides in self._entries(value, "translations", None):
            if sides is None:  # a column of structs has every language in every row
                continue
            if not (isinstance(language, str) and is_language(language)):
                allowed = "a code such as zh (en is the item's own text)"
                self.fault(None, f"translations has {shown(str(language))}; a language is {allowed}")
                continue
            read = self._by_side(sides, f"{language} translation")
            if read:
                found[language] = {side: self.question(q, f"the {language} translation", side) for side, q in read.items()}
        return found

    def paraphrases(self, value: object) -> dict[Side, tuple[Question, ...]]:
        return {
            side: tuple(
                self.question(question, f"paraphrase {i}", side) for i, question in enumerate(self.sequence(questions, "paraphrases", side))
            )
            for side, questions in self._by_side(value, "paraphrases").items()
        }

    def demonstrations(self, value: object) -> dict[Side, Demonstration]:
        found: dict[Side, Demonstration] = {}
        for side, demonstration in self._by_side(value, "demonstrations").items():
            entry = self.mapping(demonstration, "the demonstration", side)
            if entry is None:
                continue
            belief = self.text(entry.get("belief"), "the belief of the demonstration", side)
            option = entry.get("option")
            if isinstance(option, int) and not isinstance(option, bool):
                found[side] = Demonstration(belief, option)
            else:
                self.fault(side, f"option of the demonstration is {_kind(option)}; it must be an option index")
        return found

    def _by_side(self, value: object, where: str) -> dict[Side, Any]:
        found: dict[Side, Any] = {}
        for key, part in self._entries(value, where, None):
            if key not in SIDES:
                self.fault(None, f"{where} has {shown(str(key))}; a side is word or deed")
            elif part is not None:
                found["word" if key == "word" else "deed"] = part
        return found

    def _entries(self, value: object, where: str, side: Side | None) -> list[tuple[Any, Any]]:
        """Keys and values of an object, of an Arrow map (which arrives as a list of pairs), or of nothing."""
        if value is None:
            return []
        if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
            return value
        entry = self.mapping(value, where, side)
        return list(entry.items()) if entry is not None else []


def _plain_question(question: Question) -> dict[str, Any]:
    return {"question": question.question, "options": list(question.options)}


def _is_unicode(text: str) -> bool:
    """False for text with lone surrogates: bytes that did not decode, or halves of a pair written as JSON escapes."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    """What came, in words for a message."""
    if value is None:
        return "missing"
    if isinstance(value, str):
        return f'the text "{shown(value)}"'
    if isinstance(value, (bool, int, float)):
        return f"{value}"
    return "a list" if isinstance(value, (list, tuple)) else "an object" if isinstance(value, Mapping) else "not text"
