"""The rules, each for one form of answer, in the order in which they are tried: strict before lenient.

A rule says which places it found: one place is the answer, more than one is a reply that names several, and none leaves the reply to
the next rule. So a clear answer behind a list of all the options is found, since the rules for clear answers come first. Places are
those of the labels as shown; `metrics/parsed.py` turns them into options.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from wdct_dist.prompts.parse.reply import CLAUSE_LENGTH, NOWHERE, Mention, Places, Reply, has_word, words_of
from wdct_dist.prompts.parse.words import REPLY_WORDS


def label_alone(reply: Reply) -> Places:
    """Nothing but one label: `A`, `(b)`, `**B**`, `Ａ。`"""
    return reply.places(reply.labels.mentions(reply.labels.alone, reply.text))


def first_line(reply: Reply) -> Places:
    """A label alone on the first line, with reasons below it."""
    return reply.places(reply.labels.mentions(reply.labels.alone, reply.text.partition("\n")[0]))


def final_statement(reply: Reply) -> Places:
    """`So my final answer is B`, `最终答案是B`: the last one, whatever was stated before."""

    def is_final(mention: Mention) -> bool:
        line = reply.masked[max(0, mention.start - CLAUSE_LENGTH) : mention.start].rpartition("\n")[2]
        return any(re.search(words.final, line, re.IGNORECASE) for words in REPLY_WORDS.values())

    return reply.chosen([mention for mention in reply.stated if is_final(mention)][-1:])


def statement(reply: Reply) -> Places:
    """`The answer is B`, `Answer: (B)`, `I would choose option B`, `B is better`, `答案：B`, `我选择B`."""
    return reply.chosen(reply.stated)


def answer_line(reply: Reply) -> Places:
    """`Answer: … X`: the label on the line behind the word, whatever stands between."""
    heads = list(_ANSWER_HEAD.finditer(reply.masked))
    if not heads:
        return NOWHERE
    start, stop = heads[-1].span("line")
    return bracketed(reply, start, stop) or delimited(reply, start, stop) or capital(reply, start, stop)


_ANSWER_HEAD = re.compile(r"(?:\b(?:answer|choice)\s?:|(?:答案|回答)\s?(?:是|:))\s*(?P<line>[^\n]*)", re.IGNORECASE)


def last_line(reply: Reply) -> Places:
    """A label alone on the last line. Not `A.` or `A:`, which may be a list that was cut."""
    return reply.places(reply.labels.mentions(reply.labels.last_line, reply.text))


def line_start(reply: Reply) -> Places:
    """A line that begins with a label: `B. No, their learning …`; no other option's text may stand anywhere.

    `A: no / B: yes` judges several labels in one line, and chooses none.
    """
    mentions = [m for m in reply.labels.mentions(reply.labels.line_start, reply.text) if "{" not in _line_before(reply, m)]
    found = reply.places(mentions)
    if not found:
        return NOWHERE
    judged = {
        other.place
        for mention in mentions
        for other in reply.labels.mentions(reply.labels.delimited, _line_behind(reply, mention))
        if _line_behind(reply, mention)[other.stop : other.stop + 1] == reply.text[mention.stop : mention.stop + 1] == ":"
    }
    return found | option_contained(reply) | judged


def _line_before(reply: Reply, mention: Mention) -> str:
    return reply.text[max(0, mention.start - CLAUSE_LENGTH) : mention.start].rpartition("\n")[2]


def _line_behind(reply: Reply, mention: Mention) -> str:
    return reply.masked[mention.stop : mention.stop + 4 * CLAUSE_LENGTH].partition("\n")[0]


def option_line(reply: Reply) -> Places:
    """A line that is an option's own text and nothing else."""
    return frozenset(
        place
        for start, stop, place in reply.said
        if not has_word(reply.text[:start].rpartition("\n")[2]) and not has_word(reply.text[stop:].partition("\n")[0])
    )


def listed(reply: Reply) -> Places:
    """Labels that are only listed: `A, B or C`, `A和B`."""
    return frozenset(m.place for form in reply.labels.listed for m in reply.labels.mentions(form, reply.masked))


def bracketed(reply: Reply, start: int = 0, stop: int | None = None) -> Places:
    """A label in brackets or bold type: `(A)`, `[B]`, `**B**`, `【B】`, `\\boxed{B}`."""
    return reply.places(m for form in reply.labels.bracketed for m in _within(reply, form, start, stop))


def named_option(reply: Reply) -> Places:
    """`option B`, `the letter B`, `选项 B`."""
    return reply.places(
        mention for language in reply.languages for mention in reply.labels.mentions(reply.labels.named[language], reply.masked)
    )


def delimited(reply: Reply, start: int = 0, stop: int | None = None) -> Places:
    """`B.`, `B)` or `B:` within a line."""
    return reply.places(_within(reply, reply.labels.delimited, start, stop))


def capital(reply: Reply, start: int = 0, stop: int | None = None) -> Places:
    """A capital letter as a word of its own, unless it reads as an article."""
    return reply.places(_within(reply, reply.labels.capital, start, stop))


def option_contained(reply: Reply) -> Places:
    """An option's own text within the reply."""
    return frozenset(place for start, _, place in reply.said if not reply.denied(start))


def option_begun(reply: Reply) -> Places:
    """The beginning of one option's text: all that is said (`Yes`, or a text cut at the limit), or up to a comma (`Yes, since …`)."""
    said = " ".join(words_of(reply.text))
    whole = frozenset(
        place
        for place, option in enumerate(reply.options)
        if option is not None and said and (option.text.startswith(f"{said} ") or (not said.isascii() and option.text.startswith(said)))
    )
    return whole or frozenset(
        place for place, option in enumerate(reply.options) if option is not None and option.opening.match(reply.text)
    )


def structured(reply: Reply) -> Places:
    """JSON and XML: `{"answer": "B", …}`, `<answer>B</answer>`; the last one, if there are several."""
    found = [mention for form in reply.labels.structured for mention in reply.labels.mentions(form, reply.masked)]
    return reply.places(sorted(found, key=lambda mention: mention.start)[-1:])


def marked(reply: Reply) -> Places:
    """`[ ] A [x] B`, `A: ❌ / B: ✅`. A mark belongs to the label right behind it, or right before it if the first label comes first."""
    chosen: set[int] = set()
    before: tuple[str, int, int | None] | None = None
    marks_first: bool | None = None
    for match in reply.labels.marked.finditer(reply.masked):
        kind = "yes" if match["yes"] else "no" if match["no"] else "label"
        place = reply.labels.place_at(match) if kind == "label" else None
        adjacent = before is not None and not has_word(reply.masked[before[1] : match.start()])
        if before is not None and adjacent and (before[0] == "label") != (kind == "label"):
            marks_first = kind == "label" if marks_first is None else marks_first
            mark = before[0] if kind == "label" else kind
            if marks_first == (kind == "label") and mark == "yes":
                labelled = place if kind == "label" else before[2]
                assert labelled is not None
                chosen.add(labelled)
        before = kind, match.end(), place
    return frozenset(chosen)


def opening_label(reply: Reply) -> Places:
    """A label that opens the reply, with a remark behind it: `B (option A is cruel)`, `B 选项A不诚实。`."""
    return reply.places(reply.labels.mentions(reply.labels.opening, reply.masked))


def several_mentioned(reply: Reply) -> Places:
    """Labels within sentences, if there are several: none of them is chosen. One alone is no answer either: `I rule out A.`"""
    found = delimited(reply) | capital(reply)
    return found if len(found) > 1 else NOWHERE


Rule = Callable[[Reply], Places]

CLEAR: tuple[Rule, ...] = (
    structured,
    marked,
    label_alone,
    first_line,
    opening_label,
    final_statement,
    statement,
    answer_line,
    last_line,
    line_start,
    option_line,
)
"""Rules that hold even where a reply also declines."""
LENIENT: tuple[Rule, ...] = (listed, bracketed, named_option, option_contained, option_begun, several_mentioned)
"""Rules for replies that do not decline, or that answer after all."""
RULES = CLEAR + LENIENT


def _within(reply: Reply, pattern: re.Pattern[str], start: int, stop: int | None) -> list[Mention]:
    found = reply.labels.mentions(pattern, reply.masked)
    return [mention for mention in found if start <= mention.start and (stop is None or mention.stop <= stop)]
