"""direct: the question, its options, and nothing between it and the answer."""

from __future__ import annotations

from wdct_dist.prompts.templates import direct_text, wording
from wdct_dist.prompts.types import Message
from wdct_dist.prompts.variants.types import Ask, Draft


def direct(ask: Ask) -> Draft:
    """One prefill, no decoding: the label probabilities are read at the first place of the reply."""
    text = direct_text(wording(ask.language), ask.question.question, ask.options_shown, ask.labels)
    messages = [Message("user", text)]
    if ask.settings.system is not None:
        messages.insert(0, Message("system", ask.settings.system))
    if ask.settings.answer_prefix:
        messages.append(Message("assistant", ask.settings.answer_prefix))
    return Draft(tuple(messages))
