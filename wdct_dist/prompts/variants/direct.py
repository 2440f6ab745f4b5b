"""direct: the question, its options, and nothing between it and the answer."""

from __future__ import annotations

from wdct_dist.prompts.templates import direct_text, wording
from wdct_dist.prompts.variants.types import Ask, Draft, framed


def direct(ask: Ask) -> Draft:
    """One prefill, no decoding: the label probabilities are read at the first place of the reply."""
    words = wording(ask.language)
    text = direct_text(words, ask.question.question, ask.options_shown, ask.labels)
    return Draft(framed(text, ask.settings), plain_cue=words.cue)
