"""joint: the word question, the model's own answer, then the deed question, in one conversation; and the reverse.

The first side's rows are the first turn by itself, which is the prompt of `direct`; the second side's rows are the whole conversation.
So CS compares what was said with what is then done. The engine puts the model's own answer into the slot.

Each order of the second question is asked behind every rotation of the first question's: a model that only says its first label
again then agrees with itself one time in k, and not always.
"""

from __future__ import annotations

from dataclasses import dataclass

from wdct_dist.items.types import Side
from wdct_dist.prompts.permute import Permutation
from wdct_dist.prompts.templates import direct_text, wording
from wdct_dist.prompts.types import ANSWER_SLOT, Message
from wdct_dist.prompts.variants.direct import direct
from wdct_dist.prompts.variants.types import Ask, Draft, Skip, framed, shown


@dataclass(frozen=True, slots=True)
class Joint:
    """The conversation that begins with the side `first`."""

    first: Side

    def __call__(self, ask: Ask) -> Draft | list[Draft] | Skip:
        before = ask.item.question(ask.other_side, ask.language)
        if before is None:
            return Skip(f"one side has no text in {ask.language}")
        if ask.side == self.first:
            return direct(ask)
        words = wording(ask.language)
        second = direct_text(words, ask.question.question, ask.options_shown, ask.labels)
        drafts = []
        for order in before_orders(ask.orders.get(self.first, ()), ask.permutation):
            first = direct_text(words, before.question, shown(before, order), ask.labels)
            *opening, question = framed(second, ask.settings, prefix=False)
            turn = (Message("user", first), Message("assistant", ANSWER_SLOT))
            reply = framed(second, ask.settings)[len(opening) + 1 :]
            drafts.append(Draft((*opening, *turn, question, *reply), plain_cue=words.cue))
        # where options say the same, as in a few published items, two orders are one question
        return list({draft.messages: draft for draft in drafts}.values())


def before_orders(orders: tuple[Permutation, ...], after: Permutation) -> tuple[Permutation, ...]:
    """The orders of the first question behind which the second one is asked in the order `after`: `after` rotated, where those are asked.

    Under `orders: all` every one of k! orders goes with k of the other side's, and not with all k!.
    """
    rotated = tuple(order for order in orders if _is_rotation(order, after))
    return rotated or orders


def _is_rotation(order: Permutation, of: Permutation) -> bool:
    shift = order.index(of[0])
    return order[shift:] + order[:shift] == of


joint = Joint("word")
joint_reverse = Joint("deed")
