"""Paraphrases written by a model, before the evaluation: what it is asked, how its replies are checked, and how they are kept.

    paraphrase_prompts   one prompt for each text that an item lacks; ordinary prompts with many `reply_tokens`
    read_reply           a reply to a question, or why it is none: the form is held to, options counted and compared
    check_prompts        what words alone leave in doubt (`alignment`): the model is asked which of the original's options a new one
                         is, in every rotation, and whether both questions ask the same
    checked              the paraphrase, refused where the answer was another one, or not clear
    to_line, Paraphrases RUN/paraphrases.jsonl, one line a reply, refused ones with the reason

A paraphrase whose options changed places would turn every match into a mismatch, so what is doubtful is refused; an item without the
paraphrase is left out of the variants that need it, and counted.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from wdct_dist.config.schema import Config, Orders
from wdct_dist.errors import DataError
from wdct_dist.ids import stable_hash
from wdct_dist.items.types import SIDES, Item, Question, Side
from wdct_dist.prompts.alignment import alignment_fault, clearly_of
from wdct_dist.prompts.permute import permutations
from wdct_dist.prompts.templates import named_labels, option_lines, spoken_as, wording
from wdct_dist.prompts.types import Message, Prompt

NAME = "paraphrases.jsonl"
VARIANT = "paraphrase"
CHECK_VARIANT = "paraphrase-check"

TOKENS_A_CHARACTER = {"en": 0.5, "zh": 3.0}
"""Room for a reply, by characters of the original: twice what English texts take, and all that a tokenizer without Chinese takes."""

CLEARER = 2.0
"""An answer of the check counts where it is this much more probable than any other: a model too small to tell gives all the same."""

REASONS_NAMED = 5
"""Reasons for refusals that are printed."""


@dataclass(frozen=True, slots=True)
class ParaphraseWording:
    """How one language asks for paraphrases."""

    styles: tuple[str, ...]
    """In what way, by number of the paraphrase, over and over."""
    ask: str
    question_cue: str
    check: str
    same: str
    """Asks whether two questions ask the same."""
    yes_no: tuple[str, str]


PARAPHRASE_WORDINGS: dict[str, ParaphraseWording] = {
    "en": ParaphraseWording(
        styles=(
            "in plain words, as one would say it aloud",
            "with other sentences in another order",
            "as briefly as possible",
            "in formal language",
            "as somebody who had only heard it would retell it",
        ),
        ask=(
            "Below is a question with {count} options. Write it anew {style}. It has to ask exactly the same: the same people, the same "
            "facts, nothing added, nothing left out. Each new option has to mean what the option of the same label means, and the "
            "options stay in their order ({labels}). Write the new text and nothing else, in this form:\n{form}\n\n"
            "The text:\nQuestion: {question}\n{options}"
        ),
        question_cue="Question:",
        check=(
            "{question}\n{options}\n\nSomebody gives this answer: “{answer}”\nWhich option is meant? "
            "Answer with the label of one option only: {labels}."
        ),
        same=(
            "First question: {question}\n\nSecond question: {new}\n\nDo both ask the same, of the same people and facts?\n{options}\n"
            "Answer with the label of one option only: {labels}."
        ),
        yes_no=("Yes, they ask the same", "No, they ask something different"),
    ),
    "zh": ParaphraseWording(
        styles=("用平常说话的口吻", "换用不同的句子和语序", "尽可能简短地", "用正式的书面语", "像听过的人转述那样"),
        ask=(
            "下面是一个有{count}个选项的问题。请{style}重新写一遍。所问的内容必须完全相同：人物相同，事实相同，不增加，也不遗漏。"
            "每个新选项的意思必须与同一标签的原选项相同，选项顺序不变（{labels}）。只写新的文字，格式如下：\n{form}\n\n"
            "原文：\n问题：{question}\n{options}"
        ),
        question_cue="问题：",
        check="{question}\n{options}\n\n有人这样回答：“{answer}”\n这指的是哪个选项？请只回答一个选项的标签：{labels}。",
        same=(
            "第一个问题：{question}\n\n第二个问题：{new}\n\n两者所问的内容、人物和事实是否相同？\n{options}\n"
            "请只回答一个选项的标签：{labels}。"
        ),
        yes_no=("是，所问的相同", "不，所问的不同"),
    ),
}

_THINKING = re.compile(r"<think>.*?</think>", re.DOTALL)
_CUE = re.compile(r"^[\s*#]*(?:question|问题)\s*[:：]\s*\**", re.IGNORECASE)
_HEADING = re.compile(r"[\s*#]*(?:the\s+)?(?:new\s+)?(?:options|choices|选项)\s*[:：]?[\s*]*", re.IGNORECASE)


def paraphrase_wording(language: str) -> ParaphraseWording:
    """In languages that we have no words for, paraphrases are asked for in English."""
    return PARAPHRASE_WORDINGS[spoken_as(language)]


@dataclass(frozen=True, slots=True)
class Written:
    """A model's reply to one paraphrase prompt."""

    item_id: str
    side: Side
    language: str
    number: int
    """From 1; counts an item's own paraphrases too."""
    question: Question | None
    """The paraphrase; None where it was refused."""
    refused: str | None
    reply: str
    """Verbatim."""


def paraphrase_prompts(items: Iterable[Item], config: Config) -> Iterator[Prompt]:
    """A prompt for each paraphrase of `augment.paraphrases` that an item lacks, in each language that both of its questions have."""
    numbers = [number for number in config.augment.paraphrases if number > 0]
    for item in items:
        for language in config.data.languages:
            questions = {side: item.question(side, language) for side in SIDES}
            for side in SIDES:
                question = questions[side]
                if question is None or None in questions.values():
                    continue
                own = len(item.paraphrases.get(side, ())) if language == "en" else 0
                for number in numbers:
                    if number > own:
                        yield _paraphrase_prompt(item, side, language, question, number, config)


def paraphrase_number(prompt: Prompt) -> int:
    """The number of the paraphrase that a prompt of `paraphrase_prompts` asks for."""
    return int(prompt.variant.partition("number=")[2])


def read_reply(prompt: Prompt, reply: str, original: Question) -> Written:
    """The paraphrase in a reply to `prompt`, or why it is refused."""
    found = read_paraphrase(reply, original, prompt.labels)
    question, refused = (None, found) if isinstance(found, str) else (found, None)
    return Written(prompt.item_id, prompt.side, prompt.language, paraphrase_number(prompt), question, refused, reply)


def read_paraphrase(reply: str, original: Question, labels: Sequence[str]) -> Question | str:
    """The question and options that a reply holds, in the order of `labels`; or what is wrong with it, in words.

    Refused: other labels or another order of them, empty, equal or nearly equal options, options that are or resemble another one's
    original, a question that lost most of its text, the very words of the original, another script.
    """
    text = _THINKING.sub("", reply)
    if "<think>" in text:
        return "the thinking was not finished"
    lines = [line.strip() for line in text.strip().splitlines()]
    option_of = re.compile(rf"\**\(?({'|'.join(re.escape(label) for label in labels)}|[A-Z])\)?\s*[.):：．、]\**\s*(.*)")
    matches = [option_of.fullmatch(line) for line in lines]
    places = [place for place, match in enumerate(matches) if match]
    if not places:
        return "it has no options"
    named = tuple(match[1] for match in matches if match)
    if named != tuple(labels):
        return f"its labels are {', '.join(named)}"
    if places != list(range(places[0], places[0] + len(places))):
        between = [line for line in lines[places[0] : places[-1]] if line]
        if len(between) > len(places) - 1:
            return "there is text between its options"
    if places[-1] + 1 < len(lines) and lines[places[-1] + 1]:
        return "its last option goes on over several lines"
    asked = [line for line in lines[: places[0]] if not _HEADING.fullmatch(line)]
    question = _CUE.sub("", "\n".join(asked)).strip()
    options = tuple(match[2].strip() for match in matches if match)
    return alignment_fault(Question(question, options), original, labels) or Question(question, options)


def check_prompts(written: Written, original: Question, domain: str, config: Config) -> list[Prompt]:
    """Asks what words alone do not settle (`alignment.clearly_of`); nothing if the paraphrase is refused already.

    For each such new option in turn, which original option it is, in every rotation: [k] an option. Then, where it is in doubt, whether
    both questions ask the same, in two orders.
    """
    if written.question is None:
        return []
    words, labels = paraphrase_wording(written.language), tuple(config.prompt.labels[: len(original.options)])
    rotations = permutations(Orders.rotations, len(original.options), item_id=written.item_id, side=written.side, order_seed=0)
    variant = f"{CHECK_VARIANT}/number={written.number}"
    key = (written.item_id, domain, written.side, written.language)
    prompts = []
    for option in doubtful_options(written.question, original):
        for rotation in rotations:
            text = words.check.format(
                question=original.question,
                options=option_lines([original.options[shown] for shown in rotation], labels),
                answer=written.question.options[option],
                labels=named_labels(wording(written.language), labels),
            )
            prompts.append(_prompt(key, f"{variant}/option={option}", text, rotation, labels, None))
    if not clearly_of(written.question.question, original.question):
        for order in ((0, 1), (1, 0)):
            text = words.same.format(
                question=original.question,
                new=written.question.question,
                options=option_lines([words.yes_no[shown] for shown in order], labels[:2]),
                labels=named_labels(wording(written.language), labels[:2]),
            )
            prompts.append(_prompt(key, f"{variant}/question", text, order, labels[:2], None))
    return prompts


def doubtful_options(new: Question, original: Question) -> list[int]:
    """The options of which words alone do not say that they are their own originals."""

    def others(option: int) -> list[str]:
        return [text for place, text in enumerate(original.options) if place != option]

    return [option for option, text in enumerate(new.options) if not clearly_of(text, original.options[option], others(option))]


def checked(written: Written, original: Question, option_logprobs: Sequence[Sequence[float] | None]) -> Written:
    """`written`, refused where a new option was not clearly read as its own original, or the question as another one.

    `option_logprobs`: by prompt of `check_prompts`.
    """
    if written.question is None:
        return written
    k, doubtful = len(original.options), doubtful_options(written.question, original)
    for place, option in enumerate(doubtful):
        if not _is_read_as(option, option_logprobs[place * k : (place + 1) * k], k):
            return replace(written, question=None, refused="an option was not clearly read as its own original")
    about_question = option_logprobs[len(doubtful) * k :]
    if about_question and not _is_read_as(0, about_question, 2):
        return replace(written, question=None, refused="its question was not clearly read as the same")
    return written


def _is_read_as(option: int, read: Sequence[Sequence[float] | None], k: int) -> bool:
    """Whether an option is clearly the most probable one on average over orders, of those that have an answer."""
    means = _mean_probabilities([values for values in read if values is not None], k)
    return bool(means) and all(means[option] >= CLEARER * mean for place, mean in enumerate(means) if place != option)


def to_line(written: Written) -> str:
    """One line of RUN/paraphrases.jsonl."""
    question = None if written.question is None else {"question": written.question.question, "options": list(written.question.options)}
    entry = {
        "item_id": written.item_id,
        "side": written.side,
        "language": written.language,
        "number": written.number,
        "question": question,
        "refused": written.refused,
        "reply": written.reply,
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class Paraphrases:
    """The paraphrases of a run that a model wrote and that were not refused."""

    by_question: Mapping[tuple[str, Side, str], Mapping[int, Question]] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    """How many replies were refused, by reason."""

    def lines(self) -> list[str]:
        """How many were kept and why the others were not, a sentence each; the most frequent reasons first."""
        num_kept, num_refused = sum(len(found) for found in self.by_question.values()), sum(self.refused.values())
        said = [f"paraphrases: {num_kept:,} of {num_kept + num_refused:,} that the paraphraser wrote are kept"]
        ranked = sorted(self.refused.items(), key=lambda one: -one[1])
        said += [f"paraphrases: {count:,} refused: {reason}" for reason, count in ranked[:REASONS_NAMED]]
        if rest := sum(count for _, count in ranked[REASONS_NAMED:]):
            said.append(f"paraphrases: {rest:,} refused for other reasons; {NAME} has them all")
        return said

    def of(self, item_id: str, side: Side, language: str) -> Mapping[int, Question]:
        """By number."""
        return self.by_question.get((item_id, side, language), {})

    @classmethod
    def from_lines(cls, lines: Iterable[str]) -> Paraphrases:
        """The inverse of `to_line`, over all lines. Raises `DataError` for a line that is none."""
        found: dict[tuple[str, Side, str], dict[int, Question]] = {}
        refused: Counter[str] = Counter()
        for place, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                key: tuple[str, Side, str] = (entry["item_id"], SIDES[SIDES.index(entry["side"])], entry["language"])
                if entry["question"] is None:
                    refused[entry["refused"]] += 1
                    continue
                question = Question(entry["question"]["question"], tuple(entry["question"]["options"]))
                found.setdefault(key, {})[int(entry["number"])] = question
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(
                    f"{NAME}, line {place}: not a paraphrase ({type(error).__name__}: {error}); restore the file, or delete it to have "
                    "the paraphrases written again."
                ) from None
        return cls(found, refused)


def _paraphrase_prompt(item: Item, side: Side, language: str, question: Question, number: int, config: Config) -> Prompt:
    words, labels = paraphrase_wording(language), tuple(config.prompt.labels[: item.num_options])
    text = words.ask.format(
        count=item.num_options,
        style=words.styles[(number - 1) % len(words.styles)],
        labels=wording(language).list_separator.join(labels),
        form="\n".join([f"{words.question_cue} …", *(f"{label}. …" for label in labels)]),
        question=question.question,
        options=option_lines(question.options, labels),
    )
    key = (item.item_id, item.domain, side, language)
    as_given = tuple(range(item.num_options))
    length = sum(len(part) for part in (question.question, *question.options))
    room = max(config.sampling.max_new_tokens, math.ceil(TOKENS_A_CHARACTER.get(language, 3.0) * length))
    return _prompt(key, f"{VARIANT}/number={number}", text, as_given, labels, room)


def _prompt(
    key: tuple[str, str, Side, str],
    variant: str,
    text: str,
    permutation: tuple[int, ...],
    labels: tuple[str, ...],
    reply_tokens: int | None,
) -> Prompt:
    item_id, domain, side, language = key
    cue = paraphrase_wording(language).question_cue if reply_tokens is not None else wording(language).cue
    return Prompt(
        prompt_id=stable_hash([item_id, side, variant, language, permutation, labels, text, reply_tokens, cue]),
        item_id=item_id,
        domain=domain,
        side=side,
        variant=variant,
        language=language,
        permutation=permutation,
        labels=labels,
        messages=(Message("user", text),),
        mode="score",
        reply_tokens=reply_tokens,
        plain_cue=cue,
    )


def _mean_probabilities(logprobs: Sequence[Sequence[float]], k: int) -> list[float]:
    """Softmax of each, then the mean; [k], or empty where there are none."""
    if not logprobs:
        return []
    rows = []
    for values in logprobs:
        top = max(values)
        weights = [math.exp(value - top) for value in values]
        rows.append([weight / math.fsum(weights) for weight in weights])
    return [math.fsum(row[option] for row in rows) / len(rows) for option in range(k)]
