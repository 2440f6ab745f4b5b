"""What an engine is asked about one prompt, request by request: pure, without vLLM.

A prompt is a little program (`Steps`): it asks for one or more generations, is given them, asks again or returns its response. It waits
for no other prompt, so the phases of different prompts overlap.

    score    label probabilities where the reply begins
    reason   the model's own reasoning, then the label probabilities behind it and the answer cue
    a slot   the label probabilities of the first turn, then those behind the whole conversation with that answer in it

What was generated is sent again as the same token ids, so the prefix cache serves all but the seam.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wdct_dist.config.schema import SamplingConfig
from wdct_dist.engine.labels import LabelSpeller, LabelTrie, option_logprobs
from wdct_dist.engine.protocol import Response
from wdct_dist.engine.render import Rendered, Renderer, rendered_digest
from wdct_dist.engine.slot import filled, first_turn, label_said, slot_place
from wdct_dist.engine.thinking import Tags, opened_at_end, scan, stop_in, thinking_tags
from wdct_dist.errors import BadInput, EngineError
from wdct_dist.ids import stable_hash
from wdct_dist.prompts.types import Prompt

MOST_IDS = 128
"""Token ids whose logprobs vLLM reads for one request (`MAX_LOGPROB_TOKEN_IDS` in its sampling_params.py)."""

SEAM_TOKENS = 8
"""Tokens kept free for a seam that is spelled with more tokens than what it replaces."""

CUE_TOKENS = 2
"""The cue's last tokens, which decide how a label is spelled behind it. The first can melt with the reasoning's last (`.⏎`)."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One request to an engine."""

    token_ids: Sequence[int]
    """What is gone on from."""
    read: tuple[int, ...] = ()
    """Token ids whose logprobs are read at the first place."""
    max_tokens: int = 1
    stop: tuple[str, ...] = ()
    """Strings that end it."""
    seed: int | None = None
    """Draws the tokens at the run's temperature; None: the most probable ones."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What an engine made of a `Generation`."""

    token_ids: tuple[int, ...]
    """An end token and the tokens of a stop string among them."""
    logprobs: Mapping[int, float]
    """Natural logs by token id at the first place, from the full-vocabulary softmax; those asked for, and perhaps others."""
    finish_reason: str
    """`stop` or `length`."""
    stop: str | None
    """The stop string that ended it; None with the finish reason `stop`: the last token is an end token."""
    num_cached_tokens: int | None


Steps = Generator[list[Generation], list[Generated], Response]
"""A prompt on its way: yields generations, is sent what came of them in the same order, returns the response."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt that can be asked."""

    prompt: Prompt
    opening: Rendered
    """What is sent first: of a conversation with a slot, the first turn."""
    place: Rendered
    """The place of the answer; where the model reasons first, as if its reasoning were empty."""
    trie: LabelTrie
    """The labels at `place`."""
    common: tuple[int, ...] = ()
    """Token ids that all prompts begun together read, so that the batches are alike all through."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What was read and generated at the place of an answer."""

    place: Rendered
    trie: LabelTrie
    logprobs: Sequence[Mapping[int, float]]
    """By token id, for each context of the trie."""
    first: Generated
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class _Reasoning:
    """What a model generated before its answer."""

    token_ids: list[int]
    """Without an end token."""
    text: str
    """Up to and without the stop string."""
    open: Tags | None
    """The thinking block that it leaves open."""
    finish_reason: str
    num_output_tokens: int
    num_cached_tokens: int | None


_Read = Generator[list[Generation], list[Generated], _Reading]
_Reasoned = Generator[list[Generation], list[Generated], _Reasoning]


class Asker:
    """Turns the prompts of one checkpoint into steps. Safe to use from several threads."""

    def __init__(self, tokenizer: Any, renderer: Renderer, speller: LabelSpeller, sampling: SamplingConfig, max_model_len: int) -> None:
        self._tokenizer = tokenizer
        self._renderer = renderer
        self._speller = speller
        self._sampling = sampling
        self._max_model_len = max_model_len
        self._tags = thinking_tags(tokenizer)
        self._closing_tokens = max(len(ids) for ids in renderer.encode([_closing(tags) for tags in self._tags]))
        self._text_of: dict[int, str] = {}

    def begin(self, prompts: Sequence[Prompt], trial: int) -> list[Steps | Response]:
        """The steps of each prompt; for one that cannot be asked, its response."""
        openings = [prompt if (slot := slot_place(prompt)) is None else first_turn(prompt, slot) for prompt in prompts]
        asked: list[_Asked | BadInput] = []
        for prompt, opening in zip(prompts, self._rendered(openings), strict=True):
            try:
                asked.append(self._checked(prompt, opening))
            except BadInput as error:
                asked.append(error)
        tries = {id(one.trie): one.trie for one in asked if isinstance(one, _Asked)}.values()
        common = tuple(sorted({token for trie in tries for read in trie.reads for token in read}))
        if len(common) > MOST_IDS:
            common = ()
        return [
            Response(prompt.prompt_id, trial, error=" ".join(str(one).split()))
            if isinstance(one, BadInput)
            else self._steps(replace(one, common=common), trial)
            for prompt, one in zip(prompts, asked, strict=True)
        ]

    def _steps(self, asked: _Asked, trial: int) -> Steps:
        if asked.prompt.mode == "reason":
            return self._reason(asked, trial)
        slot = slot_place(asked.prompt)
        return self._score(asked, trial) if slot is None else self._converse(asked, slot, trial)

    def _rendered(self, prompts: Sequence[Prompt]) -> list[Rendered | BadInput]:
        try:
            return list(self._renderer.render(prompts))
        except BadInput as error:
            if len(prompts) == 1:
                return [error]
            # the template refuses one of them: each by itself shows which
            return [one for prompt in prompts for one in self._rendered([prompt])]

    def _checked(self, prompt: Prompt, opening: Rendered | BadInput) -> _Asked:
        if isinstance(opening, BadInput):
            raise opening
        place = opening
        if prompt.mode == "reason":
            text = opening.text + _cue(prompt)
            place = Rendered(tuple(self._renderer.encode([text])[0]), text)
        asked = _Asked(prompt, opening, place, self._speller.trie(place, prompt.labels))
        if prompt.mode == "reason":
            self._reasoning_limit(asked)
        else:
            self._require_room(place, asked.trie)
        return asked

    def _require_room(self, place: Rendered, trie: LabelTrie) -> None:
        num_tokens = len(place.token_ids) + len(trie.contexts[-1])
        if num_tokens > self._max_model_len - 1:
            raise BadInput(
                f"the prompt is too long: {num_tokens} tokens, where the engine takes {self._max_model_len - 1} and one for "
                "the reply; raise engine.max_model_len as far as the checkpoint allows, or shorten the item."
            )

    def _reasoning_limit(self, asked: _Asked) -> int:
        """Tokens that the model may reason for: the configured number, or what is left beside the prompt, the cue and one token."""
        num_tokens = len(asked.place.token_ids) + len(asked.trie.contexts[-1]) + self._closing_tokens + SEAM_TOKENS
        room = self._max_model_len - 1 - num_tokens
        if room < 1:
            raise BadInput(
                f"the prompt is too long to reason: it takes {num_tokens} tokens with its answer cue, and the engine {self._max_model_len} "
                "with the reasoning and the reply; raise engine.max_model_len as far as the checkpoint allows, or shorten the item."
            )
        return min(self._sampling.max_new_tokens, room)

    def _seed(self, prompt: Prompt, trial: int, *of: str | int) -> int | None:
        """The seed of what a prompt draws in a trial, `of` which part; None where nothing is drawn."""
        if self._sampling.temperature == 0:
            return None
        return int(stable_hash([self._sampling.sampling_seed, prompt.prompt_id, trial, *of], length=8), 16)

    def _score(self, asked: _Asked, trial: int) -> Steps:
        """Option probabilities where the reply begins."""
        reading = yield from self._read(asked.place, asked.trie, asked, self._seed(asked.prompt, trial))
        return self._response(asked.prompt, trial, reading)

    def _reason(self, asked: _Asked, trial: int) -> Steps:
        """Option probabilities behind the model's own reasoning.

        Of the response, finish reason, prompt tokens and cached tokens are those of the reasoning.
        """
        prompt, opening = asked.prompt, asked.opening
        reasoning = yield from self._generate_reasoning(asked, trial)
        said = reasoning.text.rstrip()
        behind = (_closing(reasoning.open) if reasoning.open is not None else "") + _cue(prompt)
        place = Rendered(self._joined(opening, reasoning.token_ids, said, behind), opening.text + said + behind)
        trie = asked.trie
        if place.token_ids[-CUE_TOKENS:] != asked.place.token_ids[-CUE_TOKENS:]:
            trie = self._speller.trie(place, prompt.labels)
        self._require_room(place, trie)
        reading = yield from self._read(place, trie, asked, self._seed(prompt, trial, "answer"))
        response = self._response(prompt, trial, reading)
        return replace(
            response,
            reasoning=reasoning.text,
            finish_reason=reasoning.finish_reason,
            num_prompt_tokens=len(opening.token_ids),
            num_cached_tokens=reasoning.num_cached_tokens,
            num_output_tokens=reasoning.num_output_tokens + reading.num_output_tokens,
        )

    def _converse(self, asked: _Asked, slot: int, trial: int) -> Steps:
        """Option probabilities behind a conversation that holds the model's own answer to its first question.

        Of the counts, the output tokens are those of both turns, the others are the whole conversation's.
        """
        prompt = asked.prompt
        first = yield from self._read(asked.opening, asked.trie, asked, None, num_tokens=1)
        label = label_said(prompt, trial, first.trie.label_logprobs(first.logprobs), self._sampling)
        [place] = self._renderer.render([filled(prompt, slot, label)])
        trie = self._speller.trie(place, prompt.labels)
        self._require_room(place, trie)
        reading = yield from self._read(place, trie, asked, self._seed(prompt, trial))
        response = self._response(prompt, trial, reading)
        return replace(response, said=label, num_output_tokens=first.num_output_tokens + reading.num_output_tokens)

    def _read(self, place: Rendered, trie: LabelTrie, asked: _Asked, seed: int | None, num_tokens: int | None = None) -> _Read:
        """Reads the labels where the reply begins and then, for labels of several tokens, in the other contexts.

        The first request also generates the reply: `num_tokens`, or as many as the prompt asks for.
        """

        def parts(context: int) -> list[tuple[int, ...]]:
            own = trie.reads[context]
            ids = asked.common if set(asked.common).issuperset(own) else own
            return [ids[start : start + MOST_IDS] for start in range(0, len(ids), MOST_IDS)]

        reply_tokens = num_tokens or asked.prompt.reply_tokens or 1
        outputs = yield [Generation(place.token_ids, ids, reply_tokens if part == 0 else 1, seed=seed) for part, ids in enumerate(parts(0))]
        read = [_merged(outputs)]
        later = [parts(context) for context in range(1, len(trie.contexts))]
        if later:
            more = yield [
                Generation((*place.token_ids, *path), ids) for path, own in zip(trie.contexts[1:], later, strict=True) for ids in own
            ]
            rest = iter(more)
            read += [_merged(list(itertools.islice(rest, len(own)))) for own in later]
            outputs = [*outputs, *more]
        return _Reading(place, trie, read, outputs[0], sum(len(output.token_ids) for output in outputs))

    def _generate_reasoning(self, asked: _Asked, trial: int) -> _Reasoned:
        """Generates until a stop string outside thinking, the end of the reply, or the limit.

        Engines know nothing of thinking, so a generation that ended at a stop string within a block goes on: first to the end of
        the block, then to the stop strings again.
        """
        prompt, opening = asked.prompt, asked.opening
        limit, opened = self._reasoning_limit(asked), self._left_open(prompt, opening.text)
        ids: list[int] = []
        num_output_tokens, num_cached_tokens = 0, None
        block, finish_reason = opened, None
        while finish_reason is None:
            going_on = bool(ids)
            [output] = yield [
                Generation(
                    (*opening.token_ids, *ids),
                    max_tokens=limit - len(ids),
                    stop=prompt.stop if block is None else (block.closing,),
                    seed=self._seed(prompt, trial, *([len(ids)] if going_on else [])),
                )
            ]
            if not going_on:
                num_cached_tokens = output.num_cached_tokens
            num_output_tokens += len(output.token_ids)
            has_ended = output.finish_reason == "stop" and output.stop is None
            ids.extend(output.token_ids[:-1] if has_ended else output.token_ids)
            text = self._decoded(opening.token_ids[-1], ids)
            scanned = scan(text, self._tags, opened)
            block, stopped_at = scanned.open, stop_in(text, scanned, prompt.stop)
            if stopped_at is not None or has_ended:
                finish_reason = "stop"
            elif output.finish_reason == "length" or len(ids) >= limit:
                finish_reason = "length"
            elif block is None and output.stop in prompt.stop:
                finish_reason = "stop"  # found by the engine, and lost in our way of decoding
        # half a character at the limit is no text
        text = text.rstrip("\ufffd") if stopped_at is None else text[:stopped_at]
        return _Reasoning(ids, text, block if stopped_at is None else None, finish_reason, num_output_tokens, num_cached_tokens)

    def _left_open(self, prompt: Prompt, text: str) -> Tags | None:
        """The thinking block that a rendered prompt opens: by the beginning of the reply, or as templates do, at its very end."""
        last = prompt.messages[-1]
        begun = scan(last.content, self._tags).open if last.role == "assistant" else None
        return begun or opened_at_end(text, self._tags)

    def _joined(self, opening: Rendered, generated: Sequence[int], said: str, behind: str) -> tuple[int, ...]:
        """Token ids of the opening, what was generated as far as `said` goes, and the text `behind` it.

        The generated ids are kept, but for the last before the seam: it and what follows are encoded anew.
        """
        last = opening.token_ids[-1]
        num_kept = len(generated)
        while num_kept and not said.startswith(self._decoded(last, generated[:num_kept])):
            num_kept -= 1
        kept = (*opening.token_ids, *generated[: max(num_kept - 1, 0)])
        whole = tuple(self._renderer.encode([opening.text + said + behind])[0])
        if whole[: len(kept)] == kept:
            return whole
        # the model spelled it otherwise than its tokenizer would: the seam is encoded by itself
        seam = (said + behind)[len(self._decoded(last, kept[len(opening.token_ids) :])) :]
        for before in ("\n", "x", "."):  # one that does not melt with the seam
            alone, both = self._renderer.encode([before, before + seam])
            if both[: len(alone)] == alone:
                return (*kept, *both[len(alone) :])
        return whole

    def _response(self, prompt: Prompt, trial: int, reading: _Reading) -> Response:
        options, mass = option_logprobs(reading.trie, reading.logprobs, prompt.permutation)
        place, first = reading.place, reading.first
        return Response(
            prompt_id=prompt.prompt_id,
            trial=trial,
            option_logprobs=options,
            label_mass=mass,
            text=self._token(first.token_ids[0])
            if prompt.reply_tokens is None
            else self._decoded(place.token_ids[-1], first.token_ids, skip_special_tokens=True),
            rendered_digest=rendered_digest(place.token_ids),
            finish_reason=first.finish_reason,
            num_prompt_tokens=len(place.token_ids),
            num_cached_tokens=first.num_cached_tokens,
            num_output_tokens=reading.num_output_tokens,
        )

    def _token(self, token: int) -> str:
        if token not in self._text_of:
            self._text_of[token] = self._decode([token], False)
        return self._text_of[token]

    def _decoded(self, last: int, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text that `ids` add behind the token `last`: decoded alone, some tokenizers drop the first blank."""
        before, both = (self._decode(one, skip_special_tokens) for one in ([last], [last, *ids]))
        return both[len(before) :] if both.startswith(before) else self._decode(list(ids), skip_special_tokens)

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False)
        return text


def _cue(prompt: Prompt) -> str:
    assert prompt.answer_cue is not None  # proven by `build_prompts`
    return prompt.answer_cue


def _closing(tags: Tags) -> str:
    """How a thinking block that the limit cut is closed."""
    return f"\n{tags.closing}\n"


def _merged(outputs: Sequence[Generated]) -> dict[int, float]:
    """Logprobs by token id, from the outputs of one context."""
    read: dict[int, float] = {}
    for output in outputs:
        if not output.token_ids:
            raise EngineError(f"the engine ended a request without a token (finish reason: {output.finish_reason}).")
        read.update(output.logprobs)
    return read
