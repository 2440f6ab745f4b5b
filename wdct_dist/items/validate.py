"""What is wrong with an item file: every problem of every item, found in one pass.

| rule | severity | what is wrong |
| --- | --- | --- |
| unparsable | bad | the record cannot be read as an item |
| encoding | bad, suspicious | bytes that are not UTF-8; text that was decoded wrongly before it came here |
| label-order | bad | labels other than A, B and so on, each once |
| too-few-options | bad | a side with less than two options |
| too-many-options | bad | a side with more options than the tables can number |
| option-count | bad | the sides have different numbers of options |
| translation-option-count, paraphrase-option-count | bad | other numbers of options than the item |
| translation-side | bad | a translation of one side only |
| reserved-domain | bad | a domain called `all`, which is what tables call all of them together |
| empty-text | bad | an empty id, domain, question, option or belief |
| correct-answer | bad | not one of the item's options |
| demonstration-option | bad | not one of the item's options |
| repeated-id | bad | an earlier item has the id |
| repeated-option | suspicious | options with the same text, so that the choice between them means nothing |
| repeated-question | suspicious | another item asks the same question with the same options on that side |
| repeated-paraphrase | suspicious | a paraphrase that says the question, or another paraphrase, again word for word |
| untranslated | suspicious | a translation that is the item's own text |
| unknown-domain | suspicious | neither a domain of the published test nor in `data.extra_domains` |
| unknown-key | suspicious | a key that is not read and is nearly one that is |

Texts are compared without regard to case and white space. A bad item cannot be evaluated; a suspicious one can, with the
rules in its `flags`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from wdct_dist.items.record import Record, Severity, shown
from wdct_dist.items.types import ALL_DOMAINS, SIDES, Item, Question, Side

_QUOTES = "\u2018\u2019\u201c\u201d"
# What the continuation bytes of UTF-8 (0x80 to 0xBF) look like when they are read as Windows-1252 or Latin-1.
_CONTINUATION = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(
    "\ufffd"  # what a decoder puts where bytes made no sense
    "|[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f]"  # control characters
    f"|[ÂÃ][{_CONTINUATION.replace('…', '')}]"  # é, ü, £ …; quotes and … do follow Ã in Portuguese capitals
    f"|â[€\u0080][{_CONTINUATION}{_QUOTES}]"  # curly quotes, dashes
    "|ï»¿|ðŸ"  # a byte order mark; emoji
    f"|(?:[ÐÑ][{_CONTINUATION}]){{2}}"  # Cyrillic
    f"|(?:[à-ï][{_CONTINUATION}{_QUOTES}]{{2}}){{2}}"  # Chinese, Japanese, Hindi …
)
# The characters with which a match can begin. One class is searched about ten times faster than the pattern, and most texts have none.
_MOJIBAKE_BEGIN = re.compile("[\ufffd\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009fÂÃÐÑà-ïð]")

MOST_OPTIONS = 127
"""An option's index is an 8-bit number in every table."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with one record."""

    item_id: str | None
    """None where the record's id could not be read."""
    position: int
    """As in `Record`."""
    side: Side | None
    """None where it is not about one side."""
    rule: str
    severity: Severity
    message: str


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What an audit found. Records that cannot be read count as items, without domain and options."""

    num_items: int
    num_bad: int
    num_suspicious: int
    """Items that are suspicious and not bad."""
    problems: tuple[Problem, ...]
    """In file order."""
    num_by_domain: Mapping[str, int]
    num_by_options: Mapping[int, int]
    num_by_language: Mapping[str, int]
    """Items with a translation, by its language."""


class Audit:
    """Takes records one by one and finds their problems; of earlier ones it keeps ids and hashes, not texts."""

    def __init__(self, known_domains: Collection[str]) -> None:
        self._known_domains = frozenset(known_domains)
        self._position_of_id: dict[str, int] = {}
        self._first_to_ask: dict[int, str] = {}
        """Id of the first item with a question, by the question's hash."""
        self._asked_again: set[int] = set()
        self._problems: list[Problem] = []
        self._num_items = 0
        self._bad: set[int] = set()
        self._suspicious: dict[int, tuple[str, ...]] = {}
        self._num_by_domain: Counter[str] = Counter()
        self._num_by_options: Counter[int] = Counter()
        self._num_by_language: Counter[str] = Counter()

    def feed(self, record: Record) -> list[Problem]:
        """The problems that show with this record. One may be of an earlier record, whose question is now asked again."""
        problems = [
            Problem(record.item_id, record.position, fault.side, fault.rule, fault.severity, fault.message) for fault in record.faults
        ]
        self._num_items += 1
        if record.item is not None:
            self._count(record.item)
            problems += [
                Problem(record.item_id, record.position, side, rule, severity, message)
                for side, rule, severity, message in _item_problems(record.item, self._known_domains)
            ]
            problems += self._repetitions(record.position, record.item)
        for problem in problems:
            if problem.severity == "bad":
                self._bad.add(problem.position)
            else:
                rules = (*self._suspicious.get(problem.position, ()), problem.rule)
                self._suspicious[problem.position] = tuple(dict.fromkeys(rules))
        self._problems += problems
        return problems

    def is_bad(self, position: int) -> bool:
        """Whether the record at this position, already fed, cannot be evaluated."""
        return position in self._bad

    def flags(self, position: int) -> tuple[str, ...]:
        """The rules that found the record at this position suspicious. Final only once every record is fed."""
        return self._suspicious.get(position, ())

    def report(self) -> AuditReport:
        """What was found so far."""
        return AuditReport(
            num_items=self._num_items,
            num_bad=len(self._bad),
            num_suspicious=len(self._suspicious.keys() - self._bad),
            problems=tuple(sorted(self._problems, key=lambda problem: problem.position)),
            num_by_domain=dict(self._num_by_domain),
            num_by_options=dict(sorted(self._num_by_options.items())),
            num_by_language=dict(self._num_by_language),
        )

    def _count(self, item: Item) -> None:
        self._num_by_domain[item.domain] += 1
        self._num_by_options[item.num_options] += 1
        self._num_by_language.update(item.translations.keys())

    def _repetitions(self, position: int, item: Item) -> Iterator[Problem]:
        if not item.item_id:
            return
        earlier = self._position_of_id.setdefault(item.item_id, position)
        if earlier != position:
            message = f"an earlier item, at {earlier}, has the same id"
            yield Problem(item.item_id, position, None, "repeated-id", "bad", message)
            return
        for side in SIDES:
            question = item.questions[side]
            key = _question_hash(side, question)
            first = self._first_to_ask.setdefault(key, item.item_id)
            if first == item.item_id:
                continue
            if key not in self._asked_again:
                self._asked_again.add(key)
                yield _asked_by_other(first, self._position_of_id[first], side, question, item.item_id)
            yield _asked_by_other(item.item_id, position, side, question, first)


def _asked_by_other(item_id: str, position: int, side: Side, question: Question, other: str) -> Problem:
    message = f"{shown(other)} asks the same: {shown(question.question)}"
    return Problem(item_id, position, side, "repeated-question", "suspicious", message)


def audit(records: Iterable[Record], known_domains: Collection[str]) -> AuditReport:
    """Every problem of `records`, with counts; reads them once."""
    running = Audit(known_domains)
    for record in records:
        running.feed(record)
    return running.report()


_Finding = tuple[Side | None, str, Severity, str]


def _item_problems(item: Item, known_domains: Collection[str]) -> Iterator[_Finding]:
    """What can be said of an item without the others."""
    for name, value in (("item_id", item.item_id), ("domain", item.domain)):
        if not value:
            yield None, "empty-text", "bad", f"{name} is empty"
        elif _mojibake(value):
            yield None, "encoding", "suspicious", f"{name} was decoded wrongly, it seems: {shown(value)}"
    if item.domain == ALL_DOMAINS:
        yield None, "reserved-domain", "bad", f"domain {ALL_DOMAINS} is what tables call all domains together; give it another name"
    elif item.domain and item.domain not in known_domains:
        known = ", ".join(sorted(known_domains))
        yield None, "unknown-domain", "suspicious", f"domain {shown(item.domain)} is none of {known} (data.extra_domains)"
    num_options = {side: len(item.questions[side].options) for side in SIDES}
    if num_options["word"] != num_options["deed"]:
        message = f"{num_options['word']} word options and {num_options['deed']} deed options"
        yield None, "option-count", "bad", message
    smaller = min(num_options.values())
    if item.correct_option is not None and not 0 <= item.correct_option < smaller:
        yield None, "correct-answer", "bad", f"the correct option is {item.correct_option}, of options 0 to {smaller - 1}"
    for side in SIDES:
        yield from _side_problems(item, side)


def _side_problems(item: Item, side: Side) -> Iterator[_Finding]:
    question = item.questions[side]
    count = len(question.options)
    if count < 2:
        allowed = "a side needs at least two (in a CSV its last lines, `A. text`)"
        yield side, "too-few-options", "bad", f"{count} option{'s' * (count != 1)}; {allowed}"
    if count > MOST_OPTIONS:
        yield side, "too-many-options", "bad", f"{count} options; allowed are up to {MOST_OPTIONS}"
    yield from _text_problems(side, "the question", question)

    for language, sides in item.translations.items():
        where = f"the {shown(language)} translation"
        translated = sides.get(side)
        if translated is None:
            yield side, "translation-side", "bad", f"{where} has the other side only"
            continue
        if len(translated.options) != count:
            message = f"{where} has {len(translated.options)} options, the question {count}"
            yield side, "translation-option-count", "bad", message
        if translated == question:
            yield side, "untranslated", "suspicious", f"{where} is the item's own text"
        yield from _text_problems(side, where, translated)

    said = {_question_hash(side, question): "the question"}
    for index, paraphrase in enumerate(item.paraphrases.get(side, ())):
        where = f"paraphrase {index}"
        if len(paraphrase.options) != count:
            message = f"{where} has {len(paraphrase.options)} options, the question {count}"
            yield side, "paraphrase-option-count", "bad", message
        same = said.setdefault(_question_hash(side, paraphrase), where)
        if same != where:
            yield side, "repeated-paraphrase", "suspicious", f"{where} says the same words as {same}"
        yield from _text_problems(side, where, paraphrase)

    demonstration = item.demonstrations.get(side)
    if demonstration is not None:
        if not 0 <= demonstration.option < count:
            message = f"the demonstration chooses option {demonstration.option}, of options 0 to {count - 1}"
            yield side, "demonstration-option", "bad", message
        yield from _text_problem(side, "the belief of the demonstration", demonstration.belief)


def _text_problems(side: Side, where: str, question: Question) -> Iterator[_Finding]:
    yield from _text_problem(side, f"the text of {where}", question.question)
    first_with: dict[str, int] = {}
    for index, option in enumerate(question.options):
        yield from _text_problem(side, f"option {index} of {where}", option)
        first = first_with.setdefault(_folded(option), index)
        if first != index and option:
            yield side, "repeated-option", "suspicious", f"options {first} and {index} of {where} are the same: {shown(option)}"


def _text_problem(side: Side, where: str, text: str) -> Iterator[_Finding]:
    if not text:
        yield side, "empty-text", "bad", f"{where} is empty"
    found = _mojibake(text)
    if found:
        around = text[max(0, found.start() - 20) : found.end() + 20]
        yield side, "encoding", "suspicious", f"{where} was decoded wrongly, it seems: {shown(around)}"


def _mojibake(text: str) -> re.Match[str] | None:
    """The first place in `text` that looks like bytes read in the wrong encoding."""
    begin = _MOJIBAKE_BEGIN.search(text)
    return _MOJIBAKE.search(text, begin.start()) if begin else None


def _folded(text: str) -> str:
    """`text` for comparison: one Unicode form, no case, one space for any white space."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def _question_hash(side: Side, question: Question) -> int:
    """64 bits that a question shares with the same question, whatever the order of its options.

    Among a million items two different questions collide with a probability of about 1e-7.
    """
    parts = [side, _folded(question.question), *sorted(map(_folded, question.options))]
    digest = hashlib.blake2b("\0".join(parts).encode("utf-8"), digest_size=8)
    return int.from_bytes(digest.digest(), "big")
