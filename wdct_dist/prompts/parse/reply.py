"""A reply as the rules read it: where labels and options' texts stand in it, and which of them are denied.

Thinking is cut off, closed or not, and every character is brought to one form (NFKC: `Ａ` is `A`, `（` is `(`, `①` is `1`). A label is
known by its core: `(a)` is `a`, so that `a)` and `A.` are read as `(a)` too.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice

from wdct_dist.prompts.parse.words import REPLY_WORDS
from wdct_dist.prompts.templates import spoken_as

_TAG = r"(?:seed:|mm:)?(?:think|thinking|thought|reasoning)>"
_OPENING_TAG = rf"(?:<{_TAG}|\[THINK\]|◁think▷|<\|START_THINKING\|>)"
_CLOSING_TAG = rf"(?:</{_TAG}|\[/THINK\]|◁/think▷|<\|END_THINKING\|>)"
_THINKING = re.compile(rf"{_OPENING_TAG}.*?(?:{_CLOSING_TAG}|\Z)", re.DOTALL | re.IGNORECASE)
_THINKING_END = re.compile(rf"\A.*{_CLOSING_TAG}", re.DOTALL | re.IGNORECASE)
"""Templates may open the thinking in the prompt: then the reply only closes it."""
_SPECIAL_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|[\u200b-\u200d\u2060\ufeff\0]")
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~")
# Runs of blanks would cost the patterns below quadratic time.
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\s*\n\s*\n\s*")

_CLAUSE_END = re.compile(r"[.!?;,:\n。、]|\bbut\b|\bso\b|但|所以")
CLAUSE_LENGTH = 60
_LEAD = r"[\s>*#\-•\"'“”‘’「『【(\[{<_`]*"
_TRAIL = r"[\s*\"'“”‘’」』】)\]}>_`]*"
_DELIMITER = r"(?:[.):](?!\d)|[,;!?\]】}」』\"”*`。、—–]|-+(?=\s))"
_FUNCTION_WORD = (
    r"(?:because|since|as|is|was|would|for|due|and|or|but|vs|which|over|based|given|if|to|in|with|than|rather\s+than|instead\s+of)\b"
)
"""None of these can follow an article, so what stands before is not one."""
_COUNTED = "个年月日天小次岁元人分点名周倍半种条"
"""Behind a Chinese number, these make it a quantity."""

_YES = r"[✅✔☑✓🗹☒]|[\[(][xX✓✔][\])]"
_NO = r"[❌✗✘🚫☐❎]|\[\s?\]|\(\s?\)"
"""Marks of a chosen option and of one that is not chosen: `[x] B`, `A: ❌`."""
_CROSSED = re.compile(r"[\s:.)*_-]*[❌✗✘🚫]")
_ASIDE = r"选项|因为|理由|解释|说明|因|(?i:because|rather\s+than|instead\s+of)\b"
"""Words that begin a remark on the label in front of them."""

LONGEST = 8_000
"""Characters of the longest reply that is read whole."""
HEAD, TAIL = 2_000, 4_000
"""Of a longer one, its beginning and its end: an answer stands there, and each rule takes bounded time."""

Places = frozenset[int]
NOWHERE: Places = frozenset()


@dataclass(frozen=True, slots=True)
class Mention:
    place: int
    start: int
    stop: int


class _Labels:
    """The patterns of one set of labels."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        cores = [_core(label) for label in labels]
        self.caseless = len({core.casefold() for core in cores}) == len(cores) and "" not in cores
        if not self.caseless:  # `+` and `-`, or `a` beside `A`
            cores = [unicodedata.normalize("NFKC", label).strip() for label in labels]
        self.place_of = {self._key(core): place for place, core in enumerate(cores)}

        def bounded(some: Iterable[str]) -> str:
            either = "|".join(re.escape(core) for core in sorted(some, key=len, reverse=True)) or "(?!)"
            return rf"(?<![A-Za-z0-9])(?:{either})(?![A-Za-z0-9]|['’][A-Za-z])"

        any_case = f"(?i:{bounded(cores)})" if self.caseless else bounded(cores)
        label = f"(?P<label>{any_case})"
        # A letter that is no word needs nothing behind it; an article or a number might begin a sentence.
        letters = [core for core in cores if core.isascii() and core.isalpha() and core.casefold() not in ("a", "i")]
        closed = rf"(?={_TRAIL}(?:\Z|\n|{_DELIMITER}|\s{_FUNCTION_WORD}|(?![{_COUNTED}])[\u4e00-\u9fff]))"
        sure = f"(?P<label>{bounded(letters)}|{any_case}{closed})"
        joined = "|".join(words.joined for words in REPLY_WORDS.values())
        next_listed = rf"{_TRAIL}(?:[/,、&]|{joined}){_LEAD}{any_case}"
        unlisted = f"(?!{next_listed})"

        self.alone = re.compile(rf"\A[\W_]*{label}[\W_]*\Z")
        self.last_line = re.compile(rf"\n[^\w\n]*{label}[^\w\n.:]*\Z")
        numbered = r"(?:\d{1,2}[.)]\s)?" if not any(core[:1].isdigit() for core in cores) else ""
        self.line_start = re.compile(rf"^{_LEAD}{numbered}{label}{unlisted}(?:{_TRAIL}{_DELIMITER}|{_TRAIL}$)", re.MULTILINE)
        self.bracketed = [
            re.compile(form.format(label)) for form in (r"\(\s?{}\s?\)", r"\[\s?{}\s?\]", r"【\s?{}\s?】", r"\*\*\W{{0,2}}{}\W{{0,2}}\*\*")
        ] + [re.compile(rf"\\boxed\{{(?:\\text\{{)?{label}")]
        self.delimited = re.compile(rf"(?<![\w.]){label}[.):](?!\w)")
        self.listed = [re.compile(f"{label}(?={next_listed})"), re.compile(rf"{any_case}{_TRAIL}(?:[/,、&]|{joined}){_LEAD}{label}")]
        key = r"(?:final[_ ]?)?(?:answer|choice|option|selection|decision|label|response|答案|选择)"
        self.structured = [
            re.compile(rf"(?i:[\"']{key}[\"'])\s*:\s*[\"']?[(\[*]{{0,2}}{label}[)\].*]{{0,2}}[\"']?\s*(?=[,}}\]\n]|\Z)"),
            re.compile(rf"(?i:<{key}>)\s*[(\[*]{{0,2}}{label}[)\].*]{{0,2}}\s*</"),
        ]
        aside = rf"(?=\s*[(（](?!\s*(?:{joined}))|\s+(?:{_ASIDE}))"
        # in the case that is shown: `a because` may be anything
        self.opening = re.compile(rf"\A{_LEAD}(?P<label>{bounded(cores)}){unlisted}{_TRAIL}{aside}")
        self.marked = re.compile(rf"(?P<yes>{_YES})|(?P<no>{_NO})|{label}")
        capitals = bounded(core for core in cores if len(core) == 1 and "A" <= core <= "Z")
        self.capital = re.compile(rf"(?P<label>{capitals})(?!\s(?!{_FUNCTION_WORD})[a-z])")
        self.stated = {
            language: [
                re.compile(rf"(?i:{words.answer}|{words.choose})\s?(?i:(?:the\s)?(?:{words.option}))?{_LEAD}{sure}{unlisted}"),
                re.compile(rf"{label}{_TRAIL}(?i:{words.praised})"),
            ]
            for language, words in REPLY_WORDS.items()
        }
        alone = r"(?=[^\w:]*(?:\Z|\n|[.,;!?。]|\s(?i:because|since|as|for)\b|因))"
        self.named = {
            language: re.compile(rf"(?:\A|\n|(?<=[.!?。:]\s))[\W_]{{0,12}}(?i:(?:the\s)?(?:{words.option})){_LEAD}{label}{unlisted}{alone}")
            for language, words in REPLY_WORDS.items()
        }

    def mentions(self, pattern: re.Pattern[str], text: str) -> Iterator[Mention]:
        for match in pattern.finditer(text):
            yield Mention(self.place_at(match), match.start("label"), match.end("label"))

    def place_at(self, match: re.Match[str]) -> int:
        """Return the place of the label that a pattern has matched."""
        return self.place_of[self._key(match["label"])]

    def _key(self, core: str) -> str:
        return core.casefold() if self.caseless else core


@lru_cache(maxsize=256)
def _labels(labels: tuple[str, ...]) -> _Labels:
    return _Labels(labels)


@dataclass(frozen=True, slots=True)
class _Option:
    """One option's text: its words one after the other, whatever stands between them, in capitals or not."""

    whole: re.Pattern[str]
    opening: re.Pattern[str]
    """A reply that begins with what stands before the text's first comma or point (`Yes`, `不应该`), be it under an unknown label."""
    text: str
    """Its words, one blank between two."""


_OPENING = re.compile(r"[^,.:;!?。、\n]+")


@lru_cache(maxsize=8192)
def _option(text: str) -> _Option | None:
    """None where the text has no words."""
    text = _BLANKS.sub(" ", unicodedata.normalize("NFKC", text)).strip()
    opening = _OPENING.search(text)
    if opening is None or not words_of(text):
        return None
    begun = re.compile(rf"\A[\W_]*(?:[a-z0-9][\W_]+)?{_pattern(opening[0]).pattern}[^\w\s]", re.IGNORECASE)
    return _Option(_pattern(text), begun, " ".join(words_of(text)))


def _pattern(text: str) -> re.Pattern[str]:
    words = words_of(text) or [re.escape(text)]
    between = r"[\W_]{1,4}" if text.isascii() else r"[\W_]{0,4}"
    return re.compile(rf"(?<![A-Za-z0-9]){between.join(map(re.escape, words))}(?![A-Za-z0-9])", re.IGNORECASE)


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


class Reply:
    """A reply, and what it is read by."""

    def __init__(self, text: str, labels: tuple[str, ...], options: tuple[str, ...], language: str) -> None:
        self.text = text
        self.shown_labels, self.shown_options, self.language = labels, options, language
        self.labels = _labels(labels)
        self.options = [_option(option) for option in options]
        spoken = spoken_as(language)
        self.languages = sorted(REPLY_WORDS, key=lambda name: name != spoken)
        found = [
            (match.start(), match.end(), place)
            for place, option in enumerate(self.options)
            if option is not None
            for match in option.whole.finditer(text)
        ]
        self.said: list[tuple[int, int, int]] = []
        """(start, stop, place) where an option's whole text stands, in order; of two, one within the other, the longer was said."""
        widest = (0, 0)
        for start, stop, place in sorted(found, key=lambda one: (one[0], -one[1])):
            if stop > widest[1] or (start, stop) == widest:
                self.said.append((start, stop, place))
                widest = (start, stop)
        masked = list(text)
        for start, stop, _ in self.said:
            masked[start:stop] = "\0" * (stop - start)
        self.masked = "".join(masked)
        """The text with the options' own words blanked out: a label within them, or a `not`, is not the reply's."""

    def places(self, mentions: Iterable[Mention]) -> Places:
        """The places mentioned and not denied. A label right before another option's own text names both."""
        found: set[int] = set()
        for mention in mentions:
            if self.denied(mention.start) or self.refuted(mention.stop) or self.heads_answer(mention):
                continue
            found.add(mention.place)
            for start, _, place in islice(self.said, bisect_left(self.said, (mention.stop, 0, 0)), None):
                if has_word(self.text[mention.stop : start]):
                    break
                found.add(place)
        return frozenset(found)

    def chosen(self, statements: list[Mention]) -> Places:
        """The places stated, and those of other options' texts where a line gives them under the same label."""
        stated = {mention.place for mention in statements}
        lines = (mention for mention in self.labels.mentions(self.labels.line_start, self.text) if mention.place in stated)
        return self.places([*statements, *lines])

    def heads_answer(self, mention: Mention) -> bool:
        """Whether it is the `A:` of `Q: … A: …`: words follow that do not begin the option's text, and there is no `B:`."""
        option = self.options[mention.place] if mention.place < len(self.options) else None
        if option is None or self.text[mention.start : mention.stop + 1] != "A:":
            return False
        behind = words_of(self.text[mention.stop : mention.stop + CLAUSE_LENGTH])[:2]
        if not behind or option.text.startswith(" ".join(behind)):
            return False
        return self.with_colon <= {mention.place}

    @cached_property
    def with_colon(self) -> Places:
        """Labels that stand before a colon anywhere."""
        found = self.labels.mentions(self.labels.delimited, self.text)
        return frozenset(mention.place for mention in found if self.text[mention.stop] == ":")

    def denied(self, at: int) -> bool:
        """Whether the clause before `at` says no to what follows."""
        clause = _CLAUSE_END.split(self.masked[max(0, at - CLAUSE_LENGTH) : at])[-1]
        return any(re.search(words.denied, clause, re.IGNORECASE) for words in REPLY_WORDS.values())

    def refuted(self, at: int) -> bool:
        """Whether what follows on the label that ends at `at` says that it is not the one: `B is not better`, `A is wrong`."""
        behind = self.masked[at : at + CLAUSE_LENGTH]
        return _CROSSED.match(behind) is not None or any(re.match(words.refuted, behind, re.IGNORECASE) for words in REPLY_WORDS.values())

    @cached_property
    def stated(self) -> list[Mention]:
        """Labels that a statement chooses, in the words of the first language that has any."""
        for language in self.languages:
            found = [
                mention
                for pattern in self.labels.stated[language]
                for mention in self.labels.mentions(pattern, self.masked)
                if not self.denied(mention.start)
            ]
            if found:
                return sorted(found, key=lambda mention: mention.start)
        return []


def answer_part(text: str) -> str:
    """The reply without thinking, special tokens and struck text, in one form of each character."""
    spoken = _THINKING_END.sub("", _THINKING.sub("", text))
    spoken = _BLANKS.sub(" ", unicodedata.normalize("NFKC", _SPECIAL_TOKEN.sub("", spoken)))
    spoken = _BLANK_LINES.sub("\n\n", _STRUCK.sub("", spoken)).strip()
    return spoken if len(spoken) <= LONGEST else f"{spoken[:HEAD]}\n\n{spoken[-TAIL:]}"


def has_word(text: str) -> bool:
    return re.search(r"[^\W_]", text) is not None


def _core(label: str) -> str:
    """What is left of a label without its brackets and points: `(a)` is `a`."""
    return re.sub(r"\A[\W_]+|[\W_]+\Z", "", unicodedata.normalize("NFKC", label))
