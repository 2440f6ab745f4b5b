"""Which option a reply chooses, read from its text. Pure: the same text gives the same answer on any machine, without a model.

The words that we send are in `templates.py`; `REPLY_WORDS` says, for each language of them, in which words replies answer.
`RULES` are tried in their order, strict before lenient. A rule looks for one form of answer and says which places it found: one
place is the answer, more than one is a reply that names several, and none leaves the reply to the next rule. So a clear answer behind
a list of all the options is found, since the rules for clear answers come first. Places are those of the labels as shown;
`metrics/parsed.py` turns them into options.

Before any rule, thinking is cut off, closed or not, and every character is brought to one form (NFKC: `Ａ` is `A`, `（` is `(`,
`①` is `1`). A label is known by its core: `(a)` is `a`, so that `a)` and `A.` are read as `(a)` too.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

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


@dataclass(frozen=True, slots=True)
class ReplyWords:
    """How replies in one language answer: caseless patterns."""

    answer: str
    """Names of an answer with what leads on to a label: `answer is`, `答案:`."""
    choose: str
    """Verbs that lead on to a label: `I choose`, `选`."""
    option: str
    """Nouns before a label, which alone do not choose it: `option`, `选项`."""
    praised: str
    """What makes the label before it the answer: ` is correct`, `更好`."""
    final: str
    """What makes a statement the last word: `finally`, `最终`."""
    denied: str
    """A label in one clause with such a word before it is not chosen: `not`, `if`, `不`."""
    joined: str
    """Between labels that are only listed: `or`, `或`."""
    contrast: str
    """After a refusal, an answer may follow it: `however`, `不过`."""
    refusal: str


_AI = r"(?:ai|a\.i\.|artificial\s+intelligence|language\s+model|(?:ai|virtual)\s+assistant|chatbot)"
_CANNOT = r"(?:can['’]?t|cannot|can\s+not|unable|not\s+(?:able|capable|equipped|allowed|designed|permitted)|won['’]t)"

REPLY_WORDS: dict[str, ReplyWords] = {
    "en": ReplyWords(
        answer=(
            r"\b(?:answer|choice|selection|decision|pick|label|option(?=\s+is))\b\s*"
            r"(?:(?:is|was|are|would\s+be|will\s+be)\b\s*:?|:|=|-+>?|—|–)"
        ),
        choose=(
            r"\b(?:choos(?:es?|ing)|chosen?|pick(?:s|ed|ing)?|select(?:s|ed|ing)?|prefer|(?:go|going|went)\s+(?:with|for)"
            r"|opt(?:s|ed|ing)?\s+for|vote\s+for|lean(?:ing)?\s+towards?|settled?\s+on|decided?\s+on)\b:?"
        ),
        option=r"\b(?:option|choice|label|answer)\b:?",
        praised=(
            r"\s+(?:is|would\s+be|seems|sounds)\s+(?:(?:the|my|a|clearly|definitely|probably|more|most)\s+)*"
            r"(?:better|best|correct|right|preferable|preferred|answer|choice|suitable|appropriate)\b"
        ),
        final=r"\b(?:final|finally|in\s+conclusion|therefore|thus|hence|so|overall)\b",
        denied=r"\b(?:not|never|neither|nor|without|instead\s+of|rather\s+than|if|whether|avoid|between|either|reject)\b|n['’]t\b",
        joined=r"(?:or|and|vs\.?|versus)\b",
        contrast=r"\b(?:but|however|that\s+said|nevertheless|nonetheless|still|though|if\s+i\s+had\s+to)\b",
        refusal=(
            rf"\b(?:sorry|apologi[sz]e|apologies)\b[^.\n]{{0,100}}\b(?:{_CANNOT}|as\s+an?\s+(?:[\w-]+\s+){{0,2}}{_AI})\b"
            r"|\A\W*i\s*['’]?\s*a?m\s+sorry\W*(?:but\W*(?:i\W*)?)?\Z"  # cut at the limit
            rf"|\bi\s*(?:['’]m|\s+am)\s+(?:\w+ly\s+)?{_CANNOT}\b"
            r"|\bi\s+(?:can['’]?t|cannot|can\s+not|could\s*n[o'’]t|won['’]t|will\s+not)\s+(?:\w+ly\s+)?"
            r"(?:answer|choose|pick|select|decide|provide|give|make|assist|help|engage|take|express|respond|comment|offer|say)\b"
            r"|\bi\s+(?:must\s+|have\s+to\s+|would\s+)?(?:decline|refuse)\s+to\b"
            r"|\bi\s+(?:do\s+not|don['’]t)\s+(?:\w+ly\s+)?(?:have|hold)\s+(?:\w+\s+){0,3}"
            r"(?:opinions?|beliefs?|preferences?|feelings?|views?|experiences?)\b"
            rf"|\bas\s+an?\s+(?:[\w-]+\s+){{0,2}}{_AI}\b[^.\n]{{0,80}}\b(?:not|no|can\s+only|{_CANNOT}|don['’]t)\b"
            r"|\b(?:cannot|can['’]?t|unable\s+to)\s+answer\b"
            r"|\bnot\s+(?:appropriate|comfortable)\s+(?:for\s+me\s+)?(?:to\s+)?(?:answer|choos|tak|giv|express|provid)"
        ),
    ),
    "zh": ReplyWords(
        answer=r"(?:答案|选择|回答|选项|决定|结论)(?:应该|应当|应|就|只能)?(?:是|为|:|=)+(?:选项|标签|选择?|:)*",
        choose=r"(?:选择|选|挑选|选取|选定|倾向于|支持)(?:了|的是|是|选项|标签|答案|:)*",
        option=r"(?:选项|标签|答案|方案)(?:是|为|:)?",
        praised=r"\s*(?:选项|项)?\s*(?:是|才是|比较|更|最)(?:为|加)?(?:正确|好|佳|合适|恰当|对|合理|我的选择|我的答案|答案)",
        final=r"(?:最终|最后|综上|因此|所以|总之)",
        denied=r"不(?!得不|过|管|仅|如|妨|犹|同意)|(?<![分特区个类识差])别(?!人|的)|没有?|而非|如果|若|假如|是否|还是|之间",
        joined=r"(?:或者?|和|与|还是|以及)",
        contrast=r"(?:但是?|不过|然而|如果一定要|如果必须)",
        refusal=(
            r"(?:抱歉|对不起|很遗憾)[^。\n]{0,30}(?:无法|不能|不便|没有|不可以)"
            r"|作为[^。\n]{0,12}(?:ai|人工智能|语言模型|助手)[^。\n]{0,30}(?:无法|不能|没有|不会|不便|不具)"
            r"|(?:无法|不能|不便|拒绝|不愿|不可以)(?:直接|为您|为你|对此|就此)?(?:回答|作答|(?:做|作)出选择|给出(?:答案|选择|标签))"
            r"|我(?:无法|不能|不便|不愿)(?:选择|提供|帮助|协助|表达)"
        ),
    ),
}
"""By language. A reply is read by the words of the language that was asked in, then by the others': models change language."""

_TAG = r"(?:seed:|mm:)?(?:think|thinking|thought|reasoning)>"
_OPENING_TAG = rf"(?:<{_TAG}|\[THINK\]|◁think▷|<\|START_THINKING\|>)"
_CLOSING_TAG = rf"(?:</{_TAG}|\[/THINK\]|◁/think▷|<\|END_THINKING\|>)"
_THINKING = re.compile(rf"{_OPENING_TAG}.*?(?:{_CLOSING_TAG}|\Z)", re.DOTALL | re.IGNORECASE)
_THINKING_END = re.compile(rf"\A.*{_CLOSING_TAG}", re.DOTALL | re.IGNORECASE)
"""Templates may open the thinking in the prompt: then the reply only closes it."""
_SPECIAL_TOKEN = re.compile(r"<\|[^|<>\n]{1,40}\|>|</?s>|[\u200b-\u200d\u2060\ufeff\0]")
# Runs of blanks would cost the patterns below quadratic time.
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"\s*\n\s*\n\s*")

_CLAUSE_END = re.compile(r"[.!?;,:\n。、]|\bbut\b|\bso\b|但|所以")
_CLAUSE_LENGTH = 60
_LEAD = r"[\s>*#\-•\"'“”‘’「『【(\[{<_`]*"
_TRAIL = r"[\s*\"'“”‘’」』】)\]}>_`]*"
_DELIMITER = r"(?:[.):](?!\d)|[,;!?\]】}」』\"”*`。、—–]|-+(?=\s))"
_FUNCTION_WORD = r"(?:because|since|as|is|was|would|for|due|and|or|but|vs|which|over|based|given|if|to|in|with)\b"
"""None of these can follow an article, so what stands before is not one."""
_COUNTED = "个年月日天小次岁元人分点名周倍半种条"
"""Behind a Chinese number, these make it a quantity."""

Places = frozenset[int]
NOWHERE: Places = frozenset()


@dataclass(frozen=True, slots=True)
class _Mention:
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
        self.line_start = re.compile(rf"^{_LEAD}{label}{unlisted}(?:{_TRAIL}{_DELIMITER}|{_TRAIL}$)", re.MULTILINE)
        self.bracketed = [
            re.compile(form.format(label)) for form in (r"\(\s?{}\s?\)", r"\[\s?{}\s?\]", r"【\s?{}\s?】", r"\*\*\W{{0,2}}{}\W{{0,2}}\*\*")
        ] + [re.compile(rf"\\boxed\{{(?:\\text\{{)?{label}")]
        self.delimited = re.compile(rf"(?<![\w.]){label}[.):](?!\w)")
        self.listed = [re.compile(f"{label}(?={next_listed})"), re.compile(rf"{any_case}{_TRAIL}(?:[/,、&]|{joined}){_LEAD}{label}")]
        capitals = bounded(core for core in cores if len(core) == 1 and "A" <= core <= "Z")
        self.capital = re.compile(rf"(?P<label>{capitals})(?!\s(?!{_FUNCTION_WORD})[a-z])")
        self.stated = {
            language: [
                re.compile(rf"(?i:{words.answer}|{words.choose})\s?(?i:(?:the\s)?(?:{words.option}))?{_LEAD}{sure}{unlisted}"),
                re.compile(rf"{label}{_TRAIL}(?i:{words.praised})"),
            ]
            for language, words in REPLY_WORDS.items()
        }
        self.named = {language: re.compile(rf"(?i:{words.option}){_LEAD}{sure}{unlisted}") for language, words in REPLY_WORDS.items()}

    def mentions(self, pattern: re.Pattern[str], text: str) -> Iterator[_Mention]:
        for match in pattern.finditer(text):
            yield _Mention(self.place_of[self._key(match["label"])], match.start("label"), match.end("label"))

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
    if opening is None or not _words(text):
        return None
    begun = re.compile(rf"\A[\W_]*(?:[a-z0-9][\W_]+)?{_pattern(opening[0]).pattern}[^\w\s]", re.IGNORECASE)
    return _Option(_pattern(text), begun, " ".join(_words(text)))


def _pattern(text: str) -> re.Pattern[str]:
    words = _words(text) or [re.escape(text)]
    between = r"[\W_]{1,4}" if text.isascii() else r"[\W_]{0,4}"
    return re.compile(rf"(?<![A-Za-z0-9]){between.join(map(re.escape, words))}(?![A-Za-z0-9])", re.IGNORECASE)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


class _Reply:
    """A reply, and what it is read by."""

    def __init__(self, text: str, labels: tuple[str, ...], options: tuple[str, ...], language: str) -> None:
        self.text = text
        self.labels = _labels(labels)
        self.options = [_option(option) for option in options]
        self.languages = sorted(REPLY_WORDS, key=lambda name: name != language)
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

    def places(self, mentions: Iterable[_Mention]) -> Places:
        """The places mentioned and not denied. A label right before another option's own text names both."""
        found: set[int] = set()
        for mention in mentions:
            if self.denied(mention.start) or self.heads_answer(mention):
                continue
            found.add(mention.place)
            for start, _, place in self.said[bisect_left(self.said, (mention.stop, 0, 0)) :]:
                if _has_word(self.text[mention.stop : start]):
                    break
                found.add(place)
        return frozenset(found)

    def chosen(self, statements: list[_Mention]) -> Places:
        """The places stated, and those of other options' texts where a line gives them under the same label."""
        stated = {mention.place for mention in statements}
        lines = (mention for mention in self.labels.mentions(self.labels.line_start, self.text) if mention.place in stated)
        return self.places([*statements, *lines])

    def heads_answer(self, mention: _Mention) -> bool:
        """Whether it is the `A:` of `Q: … A: …`: words follow that do not begin the option's text, and there is no `B:`."""
        option = self.options[mention.place] if self.options else None
        if option is None or self.text[mention.start : mention.stop + 1] != "A:":
            return False
        behind = _words(self.text[mention.stop : mention.stop + _CLAUSE_LENGTH])[:2]
        if not behind or option.text.startswith(" ".join(behind)):
            return False
        others = (other for other in self.labels.mentions(self.labels.delimited, self.text) if other.place != mention.place)
        return not any(self.text[other.stop] == ":" for other in others)

    def denied(self, at: int) -> bool:
        """Whether the clause before `at` says no to what follows."""
        clause = _CLAUSE_END.split(self.masked[max(0, at - _CLAUSE_LENGTH) : at])[-1]
        return any(re.search(words.denied, clause, re.IGNORECASE) for words in REPLY_WORDS.values())

    @cached_property
    def stated(self) -> list[_Mention]:
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


def label_alone(reply: _Reply) -> Places:
    """Nothing but one label: `A`, `(b)`, `**B**`, `Ａ。`"""
    return reply.places(reply.labels.mentions(reply.labels.alone, reply.text))


def first_line(reply: _Reply) -> Places:
    """A label alone on the first line, with reasons below it."""
    return reply.places(reply.labels.mentions(reply.labels.alone, reply.text.partition("\n")[0]))


def final_statement(reply: _Reply) -> Places:
    """`So my final answer is B`, `最终答案是B`: the last one, whatever was stated before."""

    def is_final(mention: _Mention) -> bool:
        line = reply.masked[max(0, mention.start - _CLAUSE_LENGTH) : mention.start].rpartition("\n")[2]
        return any(re.search(words.final, line, re.IGNORECASE) for words in REPLY_WORDS.values())

    return reply.chosen([mention for mention in reply.stated if is_final(mention)][-1:])


def statement(reply: _Reply) -> Places:
    """`The answer is B`, `Answer: (B)`, `I would choose option B`, `B is better`, `答案：B`, `我选择B`."""
    return reply.chosen(reply.stated)


def answer_line(reply: _Reply) -> Places:
    """`Answer: … X`: the label on the line behind the word, whatever stands between."""
    heads = list(_ANSWER_HEAD.finditer(reply.masked))
    if not heads:
        return NOWHERE
    start, stop = heads[-1].span("line")
    return bracketed(reply, start, stop) or delimited(reply, start, stop) or capital(reply, start, stop)


_ANSWER_HEAD = re.compile(r"(?:\b(?:answer|choice)\s?:|(?:答案|回答)\s?(?:是|:))\s*(?P<line>[^\n]*)", re.IGNORECASE)


def last_line(reply: _Reply) -> Places:
    """A label alone on the last line. Not `A.` or `A:`, which may be a list that was cut."""
    return reply.places(reply.labels.mentions(reply.labels.last_line, reply.text))


def line_start(reply: _Reply) -> Places:
    """A line that begins with a label: `B. No, their learning …`; no other option's text may stand anywhere."""
    found = reply.places(reply.labels.mentions(reply.labels.line_start, reply.text))
    return found | option_contained(reply) if found else NOWHERE


def option_line(reply: _Reply) -> Places:
    """A line that is an option's own text and nothing else."""
    return frozenset(
        place
        for start, stop, place in reply.said
        if not _has_word(reply.text[:start].rpartition("\n")[2]) and not _has_word(reply.text[stop:].partition("\n")[0])
    )


def listed(reply: _Reply) -> Places:
    """Labels that are only listed: `A, B or C`, `A和B`."""
    return frozenset(m.place for form in reply.labels.listed for m in reply.labels.mentions(form, reply.masked))


def bracketed(reply: _Reply, start: int = 0, stop: int | None = None) -> Places:
    """A label in brackets or bold type: `(A)`, `[B]`, `**B**`, `【B】`, `\\boxed{B}`."""
    return reply.places(m for form in reply.labels.bracketed for m in _within(reply, form, start, stop))


def named_option(reply: _Reply) -> Places:
    """`option B`, `the letter B`, `选项 B`."""
    return reply.places(
        mention for language in reply.languages for mention in reply.labels.mentions(reply.labels.named[language], reply.masked)
    )


def delimited(reply: _Reply, start: int = 0, stop: int | None = None) -> Places:
    """`B.`, `B)` or `B:` within a line."""
    return reply.places(_within(reply, reply.labels.delimited, start, stop))


def capital(reply: _Reply, start: int = 0, stop: int | None = None) -> Places:
    """A capital letter as a word of its own, unless it reads as an article."""
    return reply.places(_within(reply, reply.labels.capital, start, stop))


def option_contained(reply: _Reply) -> Places:
    """An option's own text within the reply."""
    return frozenset(place for start, _, place in reply.said if not reply.denied(start))


def option_begun(reply: _Reply) -> Places:
    """The beginning of one option's text: all that is said (`Yes`, or a text cut at the limit), or up to a comma (`Yes, since …`)."""
    said = " ".join(_words(reply.text))
    whole = frozenset(
        place
        for place, option in enumerate(reply.options)
        if option is not None and said and (option.text.startswith(f"{said} ") or (not said.isascii() and option.text.startswith(said)))
    )
    return whole or frozenset(
        place for place, option in enumerate(reply.options) if option is not None and option.opening.match(reply.text)
    )


Rule = Callable[[_Reply], Places]

CLEAR: tuple[Rule, ...] = (label_alone, first_line, final_statement, statement, answer_line, last_line, line_start, option_line)
"""Rules that hold even where a reply also declines."""
LENIENT: tuple[Rule, ...] = (listed, bracketed, named_option, delimited, capital, option_contained, option_begun)
"""Rules for replies that do not decline, or that answer after all."""
RULES = CLEAR + LENIENT


def parse_reply(text: str, *, labels: tuple[str, ...], options: tuple[str, ...], language: str) -> Parsed:
    """The option that a reply chooses.

    `labels` and `options` (their texts) are those shown, in the order shown. `options` may be empty where the texts are not known:
    rules that need them then find nothing. `language` is the one asked in; a language without words of its own is read by all.
    """
    said = answer_part(text)
    reply = _Reply(said, labels, options, language)
    if not said:
        return Parsed(None, "empty")
    decided = _first(CLEAR, reply)
    if decided is not None:
        return decided
    declined = _refusal(reply)
    if declined is None:
        return _first(LENIENT, reply) or Parsed(None, "unparsed")
    turn = _CONTRAST.search(reply.masked, declined)
    after = None if turn is None else _first(LENIENT, _Reply(said[turn.end() :], labels, options, language))
    return after if after is not None and after.status == "ok" else Parsed(None, "refusal")


def answer_part(text: str) -> str:
    """The reply without thinking and special tokens, in one form of each character."""
    spoken = _THINKING_END.sub("", _THINKING.sub("", text))
    spoken = _BLANKS.sub(" ", unicodedata.normalize("NFKC", _SPECIAL_TOKEN.sub("", spoken)))
    return _BLANK_LINES.sub("\n\n", spoken).strip()


PAPER_REFUSALS = ("i'm sorry", "cannot answer", "can't answer")
PAPER_PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\A([AB])\n",  # the first line is the label
        r"\A([AB]).\n",  # or the label and one more character
        r"Answer:.*?([AB])",
        r"([AB])\.",
        r"([AB])\)",
        r"([AB]):",
        r"([AB])",
    )
)
"""In the published order, each searched in the whole text before the next: the last takes the A of `At` for an answer."""


def parse_paper(text: str) -> Literal["A", "B"] | None:
    """The answer as the published evaluation reads it (two options, labels A and B); None where it refuses or names neither.

    Source: the public code of arXiv 2503.07003 at commit 63cba03. Its quirks are kept, since `protocol: paper` reproduces it:
    capitals only, any A or B counts in the end, and only these three phrases, with a straight apostrophe, refuse.
    """
    said = text.strip()
    if is_paper_refusal(said):
        return None
    for pattern in PAPER_PATTERNS:
        found = pattern.search(said)
        if found is not None:
            return "A" if found[1] == "A" else "B"
    return None


def is_paper_refusal(text: str) -> bool:
    """Whether the published evaluation takes the reply for a refusal."""
    return any(phrase in text.lower() for phrase in PAPER_REFUSALS)


_CONTRAST = re.compile("|".join(words.contrast for words in REPLY_WORDS.values()), re.IGNORECASE)


def _first(rules: Iterable[Rule], reply: _Reply) -> Parsed | None:
    for rule in rules:
        found = rule(reply)
        if found:
            only = next(iter(found)) if len(found) == 1 else None
            return Parsed(only, "several" if only is None else "ok", rule.__name__)
    return None


def _refusal(reply: _Reply) -> int | None:
    """Where the first refusal ends. `If you cannot answer, say so` is an echo of what was asked."""
    ends = [
        match.end()
        for words in REPLY_WORDS.values()
        for match in re.finditer(words.refusal, reply.masked, re.IGNORECASE)
        if not _ECHOED_CONDITION.search(reply.masked, max(0, match.start() - _CLAUSE_LENGTH), match.start())
    ]
    return min(ends, default=None)


_ECHOED_CONDITION = re.compile(r"(?:\bif\s+you|如果你|若你)[^.。\n]*\Z", re.IGNORECASE)


def _within(reply: _Reply, pattern: re.Pattern[str], start: int, stop: int | None) -> list[_Mention]:
    found = reply.labels.mentions(pattern, reply.masked)
    return [mention for mention in found if start <= mention.start and (stop is None or mention.stop <= stop)]


def _has_word(text: str) -> bool:
    return re.search(r"[^\W_]", text) is not None


def _core(label: str) -> str:
    """What is left of a label without its brackets and points: `(a)` is `a`."""
    return re.sub(r"\A[\W_]+|[\W_]+\Z", "", unicodedata.normalize("NFKC", label))
