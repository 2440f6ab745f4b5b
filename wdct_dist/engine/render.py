"""From prompts to the token ids that a model is sent.

Chat: the checkpoint's chat template, whose text already holds every special token, so none is added when it is encoded.
Plain (base models): one text that ends in the cue of its reply, with the special tokens that the tokenizer itself puts in front.
"""

from __future__ import annotations

import datetime
import hashlib
import struct
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wdct_dist.config.schema import PromptConfig, PromptFormat
from wdct_dist.engine.thinking import opened_at_end, thinking_tags
from wdct_dist.errors import CheckpointError
from wdct_dist.prompts.types import Message, Prompt

REPLY_CUE = "Answer:"
"""What a plain prompt ends in, unless it has a cue of its own or its last message begins the reply."""

PROBE_SYSTEM, PROBE_QUESTION, PROBE_REPLY = "probesystem", "probequestion", "probereply"


@dataclass(frozen=True, slots=True)
class Rendered:
    token_ids: tuple[int, ...]
    text: str
    """What the ids were encoded from; special tokens that the tokenizer adds are not in it."""


class Renderer:
    """Renders the prompts of one checkpoint. Safe to use from several threads.

    Of `settings` it uses the date alone: system message and answer prefix are already in a prompt's messages.
    `format` says what was chosen. Raises `CheckpointError` where the chat format was asked for and cannot be had.
    """

    def __init__(self, tokenizer: Any, fmt: PromptFormat, settings: PromptConfig) -> None:
        self._tokenizer = tokenizer
        self._name = str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
        has_template = bool(getattr(tokenizer, "chat_template", None))
        if fmt is PromptFormat.chat and not has_template:
            raise CheckpointError(
                f"prompt.format: chat was asked for, but the tokenizer {self._name} has no chat template; "
                "use prompt.format: plain (or auto), or add chat_template.jinja to the checkpoint."
            )
        self.format = PromptFormat.chat if has_template and fmt is not PromptFormat.plain else PromptFormat.plain
        self._date = datetime.datetime.fromisoformat(settings.date)
        self._lock = threading.Lock()
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is not None:
            # a tokenizer.json may carry the truncation and padding of its training; a prompt is never cut or filled up
            self._backend.no_truncation()
            self._backend.no_padding()
        self._bos = getattr(tokenizer, "bos_token_id", None)
        closing = {getattr(tokenizer, "eos_token_id", None), getattr(tokenizer, "sep_token_id", None)}
        self._closing = frozenset(closing - {None})
        self._tags = thinking_tags(tokenizer)
        self._folds_system = False
        self._glue = self._behind = ""
        if self.format is PromptFormat.chat:
            self._probe_template()

    @property
    def reply_begins_with_blank(self) -> bool:
        """Whether the template puts a blank, and nothing else, before a reply, as those in the manner of Mistral do."""
        return bool(self._glue) and not self._glue.strip(" ")

    @property
    def behind_reply(self) -> str:
        """What the template puts behind a finished reply; "" in the plain format, or where it cannot be told."""
        return self._behind

    def render(self, prompts: Sequence[Prompt]) -> list[Rendered]:
        """One `Rendered` a prompt, in order; encoded in one batch. Raises `CheckpointError` where one of them cannot be rendered."""
        texts = [self.text(prompt) for prompt in prompts]
        try:
            encoded = self.encode(texts)
        except (TypeError, ValueError) as error:  # half a surrogate pair, say, which is no text
            raise CheckpointError(f"the tokenizer {self._name} cannot encode this prompt ({_one_line(error)}).") from error
        return [Rendered(tuple(ids), text) for ids, text in zip(encoded, texts, strict=True)]

    def text(self, prompt: Prompt) -> str:
        """The prompt's text up to the place where the model's reply goes on."""
        if self.format is PromptFormat.plain:
            return plain_text(prompt)
        messages, prefix = split_prefix(prompt.messages)
        try:
            text = self._apply(messages, thinking=prompt.mode == "reason")
        except Exception as error:  # a template is a program of the checkpoint's and can raise anything
            raise CheckpointError(
                f"the chat template of {self._name} refuses this prompt ({_one_line(error)}); use another variant, or prompt.format: plain."
            ) from error
        tags = opened_at_end(text, self._tags)
        if tags is not None and prompt.mode == "score":
            # a template that opens thinking whatever it is told: closed, so that the answer is next
            text = f"{text.rstrip()}\n\n{tags.closing}\n\n"
        if prefix:
            return text + self._glue + prefix
        # a template that opens no reply by itself: its own heading of a reply is put there
        return text + self._glue if self._glue.strip() else text

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts that `text` gave, or of such texts with more of the reply behind them."""
        add_special = self.format is PromptFormat.plain
        if self._backend is not None:
            encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=add_special)
            encoded = [encoding.ids for encoding in encodings]
        else:
            with self._lock:  # tokenizers written in Python promise nothing about threads
                encoded = [list(self._tokenizer(t, add_special_tokens=add_special)["input_ids"]) for t in texts]
        if add_special:
            for ids in encoded:
                while len(ids) > 1 and ids[-1] in self._closing:
                    ids.pop()
                while len(ids) > 1 and ids[0] == ids[1] == self._bos:
                    del ids[0]
        return encoded

    def _apply(self, messages: Sequence[Message], *, generation_prompt: bool = True, thinking: bool = False) -> str:
        if self._folds_system:
            messages = _system_folded(messages)
        variables: dict[str, Any] = {"date_string": self._date.strftime("%d %b %Y"), "strftime_now": self._strftime}
        if not thinking:
            # templates in the manner of Qwen3 then open and close the thinking themselves, so that the answer is next;
            # templates that do not know the variable ignore it
            variables["enable_thinking"] = False
        rendered: str = self._tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            tokenize=False,
            add_generation_prompt=generation_prompt,
            **variables,
        )
        return rendered

    def _strftime(self, form: str) -> str:
        return self._date.strftime(form)

    def _probe_template(self) -> None:
        """Finds out, once, how the template treats a system message and what it writes before a reply's first word."""
        question, reply = Message("user", PROBE_QUESTION), Message("assistant", PROBE_REPLY)
        try:
            bare = self._apply([question])
        except Exception as error:
            raise CheckpointError(
                f"the chat template of {self._name} does not work ({_one_line(error)}); mend it, or use prompt.format: plain."
            ) from error
        if PROBE_QUESTION not in bare:
            raise CheckpointError(f"the chat template of {self._name} leaves out the user's message; mend it, or use prompt.format: plain.")
        try:
            self._folds_system = PROBE_SYSTEM not in self._apply([Message("system", PROBE_SYSTEM), question])
        except Exception:  # Gemma's and others raise: "System role not supported"
            self._folds_system = True
        try:
            replied = self._apply([question, reply], generation_prompt=False)
        except Exception:
            return
        if replied.startswith(bare):
            # " " for templates in the manner of Mistral, a whole heading for those without a generation prompt
            self._glue = replied[len(bare) :].partition(PROBE_REPLY)[0] if PROBE_REPLY in replied else ""
        self._behind = replied.partition(PROBE_REPLY)[2]


def render(prompt: Prompt, tokenizer: Any, fmt: PromptFormat, settings: PromptConfig) -> Rendered:
    """One prompt, rendered by itself. Many prompts are rendered faster by one `Renderer`."""
    return Renderer(tokenizer, fmt, settings).render([prompt])[0]


def rendered_digest(token_ids: Sequence[int]) -> str:
    """Hash of the ids as little-endian int32: 20 hex digits."""
    return hashlib.blake2b(struct.pack(f"<{len(token_ids)}i", *token_ids), digest_size=10).hexdigest()


def split_prefix(messages: Sequence[Message]) -> tuple[Sequence[Message], str]:
    """The finished messages, and the beginning of the reply ("" where there is none).

    Trailing blanks of the beginning are left out: the blank belongs to the first token of what follows (`Answer:`, then ` A`).
    """
    if messages and messages[-1].role == "assistant":
        return messages[:-1], messages[-1].content.rstrip(" \t")
    return messages, ""


def _system_folded(messages: Sequence[Message]) -> list[Message]:
    """System messages put in front of the first user message, for templates that have no place for them."""
    system = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    if system and others and others[0].role == "user":
        others[0] = Message("user", "\n\n".join([*system, others[0].content]))
    return others


def plain_text(prompt: Prompt) -> str:
    """A prompt as one text, for base models, up to the place where the reply goes on.

    Paragraphs; a reply stands on the line after what it replies to, behind the cue. Without a cue the text ends as it is.
    """
    cue = REPLY_CUE if prompt.plain_cue is None else prompt.plain_cue
    finished, prefix = split_prefix(prompt.messages)
    text = ""
    for message in finished:
        if message.role == "assistant":
            text += f"\n{cue} {message.content}" if cue else f"\n{message.content}"
        else:
            text += f"\n\n{message.content}" if text else message.content
    reply = prefix or cue
    return f"{text}\n{reply}" if reply else text


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
