"""What a reply says: the option that it chooses, or why none is found."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from wdct_dist.prompts.parse.reply import CLAUSE_LENGTH, Reply, answer_part
from wdct_dist.prompts.parse.rules import CLEAR, LENIENT, Rule
from wdct_dist.prompts.parse.words import REPLY_WORDS

ParseStatus = Literal["ok", "several", "refusal", "empty", "unparsed"]
"""`ok`: one option. `several`: more than one is named and none is chosen, or the label of one stands before the text of another.
`refusal`: it declines. `empty`: nothing is left once thinking is cut off. `unparsed`: there is text, and no rule finds an option."""


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a reply says."""

    place: int | None
    """Place of the label that it chose, from 0; None unless `status` is `ok`."""
    status: ParseStatus
    rule: str | None = None
    """The rule of `RULES` that decided; None where none did."""


def parse_reply(text: str, *, labels: tuple[str, ...], options: tuple[str, ...], language: str) -> Parsed:
    """The option that a reply chooses.

    `labels` and `options` (their texts) are those shown, in the order shown. `options` may be empty where the texts are not known:
    rules that need them then find nothing. `language` is the one asked in; a language without words of its own is read by all.
    """
    said = answer_part(text)
    reply = Reply(said, labels, options, language)
    if not said:
        return Parsed(None, "empty")
    decided = _corrected(reply) or _first(CLEAR, reply)
    if decided is not None:
        return decided
    declined = _refusal(reply)
    if declined is None:
        return _first(LENIENT, reply) or Parsed(None, "unparsed")
    turn = _CONTRAST.search(reply.masked, declined)
    after = None if turn is None else _first(LENIENT, Reply(said[turn.end() :], labels, options, language))
    return after if after is not None and after.status == "ok" else Parsed(None, "refusal")


_CONTRAST = re.compile("|".join(words.contrast for words in REPLY_WORDS.values()), re.IGNORECASE)


def _first(rules: Iterable[Rule], reply: Reply) -> Parsed | None:
    for rule in rules:
        found = rule(reply)
        if found:
            only = next(iter(found)) if len(found) == 1 else None
            return Parsed(only, "several" if only is None else "ok", rule.__name__)
    return None


def _corrected(reply: Reply) -> Parsed | None:
    """The answer behind the last correction, if there is a clear one: `A. Actually, B.`, `A? No, B.`"""
    turns = list(_CORRECTION.finditer(reply.masked))
    if not turns:
        return None
    rest = reply.text[turns[-1].end() :]
    found = _first(CLEAR, Reply(rest, reply.shown_labels, reply.shown_options, reply.language))
    return Parsed(found.place, "ok", "corrected") if found is not None and found.status == "ok" else None


_CORRECTION = re.compile(
    r"\b(?:actually|on\s+(?:reflection|second\s+thoughts?)|wait|correction|scratch\s+that|i\s+meant?|or\s+rather|i\s+(?:correct|take)\s+(?:it|that|myself)"
    r"|eigentlich|korrektur|doch\s+lieber|besser\s+gesagt|en\s+fait|ou\s+plutôt|en\s+realidad|mejor\s+dicho|corrección|na\s+verdade|correção|anzi"
    r"|in\s+realtà|точнее|исправлюсь)\b[\s,:;.!…-]*(?:(?:no|nein|non|não|нет)\b[\s,:;.]*)?"
    r"|[?.…]\s*(?:no|nein|non|não|нет)\s*[,:]\s*"
    r"|(?:其实|更正|我改|訂正|やっぱり)[\s,:;。、]*",
    re.IGNORECASE,
)
"""Words with which a reply takes back what it has just answered."""


def _refusal(reply: Reply) -> int | None:
    """Where the first refusal ends. `If you cannot answer, say so` is an echo of what was asked."""
    ends = [
        match.end()
        for words in REPLY_WORDS.values()
        for match in re.finditer(words.refusal, reply.masked, re.IGNORECASE)
        if not _ECHOED_CONDITION.search(reply.masked, max(0, match.start() - CLAUSE_LENGTH), match.start())
    ]
    return min(ends, default=None)


_ECHOED_CONDITION = re.compile(r"(?:\bif\s+you|如果你|若你)[^.。\n]*\Z", re.IGNORECASE)
