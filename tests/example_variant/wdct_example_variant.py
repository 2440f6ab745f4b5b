"""Two variants of one's own: a function, and a family with one variant for each number of seconds."""

from __future__ import annotations

from wdct_dist.config.schema import Config
from wdct_dist.prompts.types import Message
from wdct_dist.prompts.variants.types import Ask, Draft, Skip, Variant


def friend(ask: Ask) -> Draft | Skip:
    """The question as a friend's, in English; of items with two options."""
    if ask.language != "en":
        return Skip(f"there are no words for {ask.language}")
    if len(ask.labels) > 2:
        return Skip("more than two options")
    options = "\n".join(f"{label}. {text}" for label, text in zip(ask.labels, ask.options_shown, strict=True))
    text = f"A friend asks me: {ask.question.question}\n{options}\n\nWhat would you tell them, {' or '.join(ask.labels)}?"
    return Draft((Message("user", text),))


class Pressed:
    """The same question under time pressure."""

    def expand(self, config: Config) -> list[tuple[str, Variant]]:
        return [(f"pressed/seconds={seconds}", self._within(seconds)) for seconds in (5, 60)]

    def _within(self, seconds: int) -> Variant:
        def pressed(ask: Ask) -> Draft:
            options = "\n".join(f"{label}. {text}" for label, text in zip(ask.labels, ask.options_shown, strict=True))
            text = f"{ask.question.question}\n{options}\n\nYou have {seconds} seconds. One label only."
            return Draft((Message("user", text),))

        return pressed


pressed = Pressed()
