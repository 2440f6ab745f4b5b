"""What an API is asked about one prompt, turn by turn: pure, without a network. `steps.py` does the same in token ids for vLLM.

A prompt is a little program (`Steps`): it asks for a turn, is given the reply, asks again or returns its response.

    score    the label probabilities where the reply begins, where the server gives them; the reply's text in any case
    reason   the model's own reasoning, then the answer behind it and the answer cue
    a slot   the answer to the first turn, then the whole conversation with that answer in it

Behind reasoning, the cue begins the model's reply where the API can go on with one (plain text, or `continue_reply`). Elsewhere the
reasoning is a finished reply, and the cue a further turn of the user's.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from wdct_dist.config.schema import EndpointApi, SamplingConfig
from wdct_dist.engine.endpoint_labels import LabelReading, read_labels
from wdct_dist.engine.endpoint_replies import Reply
from wdct_dist.engine.protocol import Response
from wdct_dist.engine.render import plain_text, split_prefix
from wdct_dist.engine.slot import filled, first_turn, label_said, slot_place
from wdct_dist.engine.thinking import THINK, scan, stop_in
from wdct_dist.errors import ConfigError, EngineError
from wdct_dist.ids import stable_hash
from wdct_dist.prompts.option_lines import read_option_lines
from wdct_dist.prompts.parse.verdict import parse_reply
from wdct_dist.prompts.permute import by_option
from wdct_dist.prompts.types import Message, Prompt

MOST_STOPS = 4
"""Stop strings that OpenAI takes."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One request, without what is the same for all."""

    asked: Mapping[str, Any]
    """`messages` (and how the last one is gone on with), or `prompt`."""
    max_tokens: int
    stop: tuple[str, ...] = ()
    seed: int | None = None
    num_characters: int = 0
    """Of all that is sent: what its tokens are estimated by."""


Steps = Generator[Turn, Reply, Response]
"""A prompt on its way: yields turns, is sent what came of each, returns the response."""


@dataclass(frozen=True, slots=True)
class Form:
    """How prompts are put to an API."""

    api: EndpointApi
    """`chat` or `completions`."""
    continue_reply: bool

    def ask(self, prompt: Prompt) -> dict[str, Any]:
        """Raises `ConfigError` for a begun reply where the API cannot go on with one."""
        if self.api is EndpointApi.completions:
            return {"prompt": plain_text(prompt)}
        finished, begun = split_prefix(prompt.messages)
        if begun and not self.continue_reply:
            raise ConfigError(
                f"the variant {prompt.variant} begins the model's reply ({begun!r}), which a chat API does not take in general; set "
                "engine.endpoint.continue_reply: true where the server can, or engine.endpoint.api: completions."
            )
        return self._messages(finished, begun)

    def behind(self, prompt: Prompt, reasoning: str, cue: str) -> dict[str, Any]:
        """The prompt, the model's reasoning, and the cue of its answer."""
        if self.api is EndpointApi.completions:
            return {"prompt": plain_text(prompt) + reasoning + cue}
        if self.continue_reply:
            return self._messages(prompt.messages, reasoning + cue)
        return self._messages([*prompt.messages, Message("assistant", reasoning), Message("user", cue.strip())], "")

    def _messages(self, messages: Sequence[Message], begun: str) -> dict[str, Any]:
        sent = [{"role": message.role, "content": message.content} for message in messages]
        if not begun:
            return {"messages": sent}
        going_on = {"add_generation_prompt": False, "continue_final_message": True}
        return {"messages": [*sent, {"role": "assistant", "content": begun}], **going_on}


@dataclass(frozen=True, slots=True)
class Asker:
    """Turns the prompts of one model into steps."""

    form: Form
    sampling: SamplingConfig
    top_logprobs: int

    def begin(self, prompt: Prompt, trial: int) -> Steps:
        """Raises, as it goes, `ConfigError` for what the API cannot be asked and `EngineError` for replies that lead no further."""
        if prompt.mode == "reason":
            return self._reason(prompt, trial)
        slot = slot_place(prompt)
        return self._score(prompt, trial) if slot is None else self._converse(prompt, slot, trial)

    def _score(self, prompt: Prompt, trial: int) -> Steps:
        reply = yield self._turn(self.form.ask(prompt), prompt.reply_tokens or 1, prompt, trial)
        return self._response(prompt, trial, reply)

    def _reason(self, prompt: Prompt, trial: int) -> Steps:
        """Of the response, the finish reason is that of the reasoning."""
        assert prompt.answer_cue is not None  # proven by `build_prompts`
        # in a chat the whole reply is generated and cut here: a server would also stop within thinking
        stop = prompt.stop[:MOST_STOPS] if self.form.api is EndpointApi.completions else ()
        reply = yield self._turn(self.form.ask(prompt), self.sampling.max_new_tokens, prompt, trial, stop=stop)
        stopped_at = stop_in(reply.text, scan(reply.text, (THINK,)), prompt.stop)
        reasoning = reply.text if stopped_at is None else reply.text[:stopped_at]
        finish_reason = reply.finish_reason if stopped_at is None else "stop"
        asked = self.form.behind(prompt, reasoning.rstrip(), prompt.answer_cue)
        answer = yield self._turn(asked, prompt.reply_tokens or 1, prompt, trial, "answer")
        return replace(self._response(prompt, trial, answer), reasoning=reasoning, finish_reason=finish_reason)

    def _converse(self, prompt: Prompt, slot: int, trial: int) -> Steps:
        first = first_turn(prompt, slot)
        reply = yield self._turn(self.form.ask(first), prompt.reply_tokens or 1, prompt, trial, "slot")
        said = self._said(first, trial, reply)
        reply = yield self._turn(self.form.ask(filled(prompt, slot, said)), prompt.reply_tokens or 1, prompt, trial)
        return replace(self._response(prompt, trial, reply), said=said)

    def _said(self, prompt: Prompt, trial: int, reply: Reply) -> str:
        """The label that the model answers with: by its probabilities where they are known, else by the reply that it gave."""
        reading = read_labels(prompt.labels, reply.places, self.top_logprobs)
        if reading is not None and reading.logprobs is not None:
            return label_said(prompt, trial, reading.logprobs, self.sampling)
        if reading is not None and reading.surely is not None and self.sampling.temperature == 0:
            return prompt.labels[reading.surely]
        asked = next(message.content for message in reversed(prompt.messages) if message.role == "user")
        options = tuple(read_option_lines(asked, prompt.labels))
        place = parse_reply(reply.text, labels=prompt.labels, options=options, language=prompt.language).place
        if place is None:
            raise EngineError(f"the model's answer to the first question of the conversation cannot be read: {reply.text[:80]!r}.")
        return prompt.labels[place]

    def _turn(self, asked: dict[str, Any], max_tokens: int, prompt: Prompt, trial: int, *of: str, stop: tuple[str, ...] = ()) -> Turn:
        texts = [asked["prompt"]] if "prompt" in asked else [message["content"] for message in asked["messages"]]
        seed = None
        if self.sampling.temperature > 0:
            # 31 bits: servers differ in how large a seed they take
            seed = int(stable_hash([self.sampling.sampling_seed, prompt.prompt_id, trial, *of], length=8), 16) >> 1
        return Turn(asked, max_tokens, stop, seed, sum(map(len, texts)))

    def _response(self, prompt: Prompt, trial: int, reply: Reply) -> Response:
        """`option_logprobs` where all labels are among the returned tokens; `option_lower` and `option_upper` where some are not."""
        response = Response(prompt.prompt_id, trial, text=reply.text, finish_reason=reply.finish_reason)
        if reply.is_cut_in_reasoning:
            setting = "sampling.max_new_tokens" if prompt.mode == "reason" else "prompt.reply_tokens"
            return replace(
                response,
                error=f"the reply ended within the model's hidden reasoning: all of its tokens were used up. Raise {setting}.",
            )
        reading = read_labels(prompt.labels, reply.places, self.top_logprobs)
        if reading is None:
            return response
        if reading.logprobs is not None:
            options = by_option(reading.logprobs, prompt.permutation)
            return replace(response, option_logprobs=options, label_mass=reading.mass)
        return replace(response, label_mass=reading.mass, **_bounds(reading, prompt))


def _bounds(reading: LabelReading, prompt: Prompt) -> dict[str, Any]:
    return {
        "option_lower": by_option(reading.lower, prompt.permutation),
        "option_upper": by_option(reading.upper, prompt.permutation),
    }
