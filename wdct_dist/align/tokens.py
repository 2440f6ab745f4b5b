"""From examples and pairs to the token ids that a model is trained on.

The prompt's ids are those that the evaluation sends, made by the same code (`engine/render.py`), and a label's ids are one of the spellings
that the evaluation reads (`engine/labels.py`), so nothing is added, doubled or spelled otherwise. No torch here: a tokenizer is enough.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from wdct_dist.align.types import Example, Pair
from wdct_dist.config.schema import PromptConfig, PromptFormat
from wdct_dist.engine.labels import LabelSpeller
from wdct_dist.engine.render import Rendered, Renderer
from wdct_dist.prompts.types import Message, Prompt

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SftRow:
    prompt_ids: Ids
    completion_ids: Ids
    """With the end of turn."""


@dataclass(frozen=True, slots=True)
class DpoRow:
    prompt_ids: Ids
    chosen_ids: Ids
    rejected_ids: Ids


@dataclass(slots=True)
class Rows:
    """The rows to train on, and counts of the examples that are too long for `max_length`."""

    sft: list[SftRow] = field(default_factory=list)
    dpo: list[DpoRow] = field(default_factory=list)
    num_too_long: int = 0
    num_item_examples: int = 0
    """Examples and pairs of items, including those that are too long."""
    num_item_too_long: int = 0
    longest_item: int = 0
    """Tokens of the longest example of an item, prompt and reply."""


class TrainingTokens:
    """Renders for one model. Raises `CheckpointError` where its tokenizer or template cannot."""

    def __init__(self, tokenizer: Any, settings: PromptConfig, vocab_size: int | None = None) -> None:
        """`vocab_size`: outputs of the model; ids from there on are left out, as in the evaluation."""
        self._renderer = Renderer(tokenizer, settings.format, settings)
        self._speller = LabelSpeller(tokenizer, self._renderer.encode, vocab_size)
        self._end = self._end_of_turn(tokenizer)
        self._blank_first = self._renderer.format is PromptFormat.plain or self._renderer.reply_begins_with_blank

    def examples(self, examples: Sequence[Example], max_length: int) -> Rows:
        """A row for each example of at most `max_length` tokens, in order."""
        rows = Rows()
        prompts = self._renderer.render([_prompt(one.messages) for one in examples])
        for example, rendered in zip(examples, prompts, strict=True):
            if example.source == "item":
                reply = self._label(rendered, (example.completion.strip(),), _is_begun(example.messages))[0]
            else:
                reply = self._reply(rendered, example.completion)
            rows.sft.append(SftRow(rendered.token_ids, (*reply, *self._end)))
        return _fitting(rows, max_length, [example.source == "item" for example in examples])

    def pairs(self, pairs: Sequence[Pair], max_length: int) -> Rows:
        """A row for each pair whose longer half has at most `max_length` tokens, in order."""
        rows = Rows()
        prompts = self._renderer.render([_prompt(one.messages) for one in pairs])
        for pair, rendered in zip(pairs, prompts, strict=True):
            chosen, rejected = self._label(rendered, (pair.chosen.strip(), pair.rejected.strip()), _is_begun(pair.messages))
            rows.dpo.append(DpoRow(rendered.token_ids, (*chosen, *self._end), (*rejected, *self._end)))
        return _fitting(rows, max_length, [True] * len(pairs))

    def questions(self, asked: Sequence[tuple[tuple[Message, ...], tuple[str, ...]]]) -> list[tuple[Ids, tuple[Ids, ...]]]:
        """For questions with labels: the prompt's ids and, by label, the ids of the label alone."""
        prompts = self._renderer.render([_prompt(messages) for messages, _ in asked])
        return [
            (rendered.token_ids, tuple(self._label(rendered, labels, _is_begun(messages))))
            for (messages, labels), rendered in zip(asked, prompts, strict=True)
        ]

    def _label(self, rendered: Rendered, labels: tuple[str, ...], begun: bool) -> list[Ids]:
        """The ids of each label behind a prompt: of the spellings that are read there, the one that belongs to the place.

        With a blank in front where the model's replies begin with one (plain texts, templates in the manner of Mistral, a begun reply),
        else without.
        """
        trie = self._speller.trie(rendered, labels)
        start = len(rendered.token_ids)
        blanks = (" ", "") if begun or self._blank_first else ("", " ")
        encoded = self._renderer.encode([rendered.text + blank + label for label in labels for blank in blanks])
        found = []
        for number, paths in enumerate(trie.spellings):
            candidates = [tuple(ids) for ids in encoded[number * len(blanks) : (number + 1) * len(blanks)]]
            natural = [ids[start:] for ids in candidates if ids[:start] == rendered.token_ids and ids[start:] in paths]
            found.append(natural[0] if natural else min(paths, key=lambda path: (len(path), path)))
        return found

    def _reply(self, rendered: Rendered, text: str) -> Ids:
        """The ids of a written reply behind a prompt, whose own ids stay as they are."""
        blank = " " if self._blank_first else ""
        whole = tuple(self._renderer.encode([rendered.text + blank + text])[0])
        start = len(rendered.token_ids)
        if whole[:start] == rendered.token_ids:
            return whole[start:]
        # the tokenizer would melt the end of the prompt with the reply, which a model that replies cannot
        for before in ("\n", "x", "."):
            alone, both = self._renderer.encode([before, before + blank + text])
            if both[: len(alone)] == alone:
                return tuple(both[len(alone) :])
        return tuple(self._renderer.encode([text])[0])

    def _end_of_turn(self, tokenizer: Any) -> Ids:
        """What ends a reply: as far as its first special token what the chat template puts behind one, else the tokenizer's end of text."""
        end = getattr(tokenizer, "eos_token_id", None)
        text = self._renderer.behind_reply
        ids = self._renderer.encode([text])[0] if text else []
        special = set(getattr(tokenizer, "all_special_ids", ()))
        for place, token in enumerate(ids):
            if token in special:
                return tuple(ids[: place + 1])
        return () if end is None else (int(end),)


def _prompt(messages: tuple[Message, ...]) -> Prompt:
    """Only messages and mode decide what is rendered."""
    return Prompt("", "", "", "word", "", "en", (), (), messages, "score")


def _is_begun(messages: Sequence[Message]) -> bool:
    return bool(messages) and messages[-1].role == "assistant"


def _fitting(rows: Rows, max_length: int, of_items: Sequence[bool]) -> Rows:
    """Return the rows of at most `max_length` tokens. `of_items`: for each row, whether it belongs to an item."""
    lengths = [
        *(len(row.prompt_ids) + len(row.completion_ids) for row in rows.sft),
        *(len(row.prompt_ids) + max(len(row.chosen_ids), len(row.rejected_ids)) for row in rows.dpo),
    ]
    item_lengths = [length for length, of_item in zip(lengths, of_items, strict=True) if of_item]
    fits = [length <= max_length for length in lengths]
    return Rows(
        [row for row, kept in zip(rows.sft, fits[: len(rows.sft)], strict=True) if kept],
        [row for row, kept in zip(rows.dpo, fits[len(rows.sft) :], strict=True) if kept],
        num_too_long=fits.count(False),
        num_item_examples=len(item_lengths),
        num_item_too_long=sum(length > max_length for length in item_lengths),
        longest_item=max(item_lengths, default=0),
    )
