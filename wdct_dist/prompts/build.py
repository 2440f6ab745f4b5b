"""The prompts of a run, in a stream: family by family, an item's orders side by side.

The order of prompts is the order in which engines get them. The orders of one question share everything up to the first option,
so they stand together and the prefix cache still has it. The variants of one family share more: they go through the items
together, `prompt.block_items` at a time, so that a cache too small for the whole run still has a block's questions when the
next variant asks them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from wdct_dist.config.schema import Config, Orders
from wdct_dist.errors import ConfigError, DataError, WdctError
from wdct_dist.ids import stable_hash
from wdct_dist.items.selection import ItemSelection
from wdct_dist.items.types import SIDES, Item, Question, Side
from wdct_dist.prompts.paraphrase import Paraphrases
from wdct_dist.prompts.permute import ItemOrders, PaperDraws, Permutation, permutations, require_few_orders
from wdct_dist.prompts.types import ANSWER_SLOT, Prompt
from wdct_dist.prompts.variants.registry import find_variants
from wdct_dist.prompts.variants.types import Ask, Draft, Skip, Variant

NOT_TWO_OPTIONS = "orders: paper draws for two options"


@dataclass(slots=True)
class SkipTally:
    """How many items each variant leaves out, wholly or in part (one language), by variant and reason."""

    items: Counter[tuple[str, str]] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """A sentence for each reason; variants of one family that leave out as many items for it are named together."""
        variants: dict[tuple[str, str, int], list[str]] = {}
        for (variant, reason), count in self.items.items():
            variants.setdefault((variant.partition("/")[0], reason, count), []).append(variant)
        return [
            f"{names[0] if len(names) == 1 else f'{len(names)} variants of {family}'}: {count:,} items left out: {reason}"
            for (family, reason, count), names in variants.items()
        ]


@dataclass(frozen=True, slots=True)
class _Placed:
    """An item and the orders in which its sides are asked, or why they cannot be."""

    item: Item
    orders: ItemOrders | Skip


def build_prompts(
    items: Iterable[Item], config: Config, *, written: Paraphrases | None = None, skipped: SkipTally | None = None
) -> Iterator[Prompt]:
    """Every prompt of the run, once. `items` is iterated once a family; memory holds one block of them.

    `written` are paraphrases that a model wrote, beside the items' own. What is not asked is counted in `skipped`. Raises
    `DataError` where nothing can be asked.
    """
    tally = skipped if skipped is not None else SkipTally()
    num_prompts = 0
    require_few_orders(config.orders, items)
    for family in find_variants(config):
        placed = _placed(items, config)
        while block := list(islice(placed, config.prompt.block_items)):
            for name, variant in family:
                for one in block:
                    for prompt in _item_prompts(one, name, variant, config, written, tally):
                        num_prompts += 1
                        yield prompt
    if num_prompts == 0:
        raise DataError("\n".join(["data: no item can be asked in any of the variants:", *(f"  {line}" for line in tally.lines())]))


def _placed(items: Iterable[Item], config: Config) -> Iterator[_Placed]:
    if config.orders is Orders.paper:
        yield from _paper_placed(items)
        return
    for item in items:
        orders: dict[Side, tuple[Permutation, ...]] = {
            side: permutations(config.orders, item.num_options, item_id=item.item_id, side=side, order_seed=config.order_seed)
            for side in SIDES
        }
        yield _Placed(item, orders)


def _paper_placed(items: Iterable[Item]) -> Iterator[_Placed]:
    """With the published draws, which are over all records of the file: those that were not chosen have drawn too."""
    if isinstance(items, ItemSelection):
        draws, placed = PaperDraws(items.report.num_items), items.placed()
    else:
        draws, placed = PaperDraws(sum(1 for _ in items)), enumerate(items)
    for place, item in placed:
        if item.num_options != 2:
            yield _Placed(item, Skip(NOT_TWO_OPTIONS))
            continue
        swaps = draws.at(place)
        orders: dict[Side, tuple[Permutation, ...]] = {
            side: permutations(Orders.paper, 2, item_id=item.item_id, side=side, order_seed=0, swap=swaps[side]) for side in SIDES
        }
        yield _Placed(item, orders)


def _item_prompts(
    placed: _Placed, name: str, variant: Variant, config: Config, written: Paraphrases | None, tally: SkipTally
) -> Iterator[Prompt]:
    """The prompts of one item in one variant: every language that it has, both sides, every order."""
    item, orders = placed.item, placed.orders
    if isinstance(orders, Skip):
        tally.items[name, orders.reason] += 1
        return
    labels = tuple(config.prompt.labels[: item.num_options])
    if len(labels) < item.num_options:
        raise ConfigError(
            f"prompt.labels: {len(labels)} labels came, item {item.item_id} has {item.num_options} options; give more labels."
        )
    reasons: dict[str, None] = {}  # each once, in order
    for language in config.data.languages:
        paraphrases = paraphrases_in(item, language, written)
        for side in SIDES:
            question = item.question(side, language)
            if question is None:
                continue
            for permutation in orders[side]:
                ask = Ask(item, side, language, question, permutation, labels, config.prompt, orders, paraphrases)
                drafts = _asked(variant, name, ask)
                if isinstance(drafts, Skip):
                    reasons[drafts.reason] = None
                    continue
                yield from (_prompt(ask, name, draft, config) for draft in drafts)
    for reason in reasons:
        tally.items[name, reason] += 1


def paraphrases_in(item: Item, language: str, written: Paraphrases | None) -> Mapping[int, Mapping[Side, Question]]:
    """The paraphrases of an item in one language by number, its own before those that a model wrote; only those of both sides."""
    by_side: dict[Side, dict[int, Question]] = {side: {} for side in SIDES}
    for side in SIDES:
        if written is not None:
            by_side[side] |= written.of(item.item_id, side, language)
        if language == "en":
            by_side[side] |= dict(enumerate(item.paraphrases.get(side, ()), 1))
    return {number: {side: by_side[side][number] for side in SIDES} for number in by_side["word"] if number in by_side["deed"]}


def _asked(variant: Variant, name: str, ask: Ask) -> list[Draft] | Skip:
    """What a variant makes of an Ask; checked, since it may be a user's own."""
    where = f"variants: {name!r} of item {ask.item.item_id} ({ask.side}, {ask.language})"
    try:
        made = variant(ask)
    except WdctError:
        raise
    except Exception as error:
        raise ConfigError(f"{where} failed with {type(error).__name__}: {error}; mend the variant.") from error
    if isinstance(made, Skip):
        return made
    drafts = [made] if isinstance(made, Draft) else list(made) if isinstance(made, list | tuple) else None
    if drafts is None or not all(isinstance(draft, Draft) for draft in drafts):
        raise ConfigError(f"{where} gave {type(made).__name__}; a variant gives a Draft, a list of them, or a Skip.")
    for draft in drafts:
        if fault := _fault(draft, len(ask.labels)):
            raise ConfigError(f"{where}: {fault}.")
    if len({draft.messages for draft in drafts}) < len(drafts):
        raise ConfigError(f"{where} gave the same messages twice; each prompt is asked once, repeats are `trials`.")
    return drafts


def _fault(draft: Draft, num_options: int) -> str | None:
    """What no engine could do with a draft."""
    slots = [place for place, message in enumerate(draft.messages) if message.content == ANSWER_SLOT]
    if not any(message.role == "user" for message in draft.messages):
        return "the draft has no message of the user"
    if draft.mode not in ("score", "reason"):
        return f"the mode is {draft.mode!r}; it must be score or reason"
    if (draft.mode == "reason") != (draft.answer_cue is not None):
        return "answer_cue goes with the mode reason, and the mode reason needs it"
    if draft.labels is not None and (len(draft.labels) != num_options or len(set(draft.labels)) != num_options):
        return f"the labels are {draft.labels}; {num_options} that differ are needed"
    if slots and (
        len(slots) > 1 or draft.mode != "score" or draft.messages[slots[0]].role != "assistant" or slots[0] >= len(draft.messages) - 1
    ):
        return "the answer slot stands once, in an assistant's message with a question behind it, in the mode score"
    return None


def _prompt(ask: Ask, name: str, draft: Draft, config: Config) -> Prompt:
    labels = draft.labels or ask.labels
    reply_tokens = draft.reply_tokens if draft.reply_tokens is not None else config.prompt.reply_tokens
    content = [[message.role, message.content] for message in draft.messages]
    asked = [ask.item.item_id, ask.side, name, ask.language, ask.permutation, labels, content]
    how = [draft.mode, draft.answer_cue, draft.stop, reply_tokens, draft.plain_cue]
    return Prompt(
        prompt_id=stable_hash([*asked, *how]),
        item_id=ask.item.item_id,
        domain=ask.item.domain,
        side=ask.side,
        variant=name,
        language=ask.language,
        permutation=ask.permutation,
        labels=labels,
        messages=draft.messages,
        mode=draft.mode,
        answer_cue=draft.answer_cue,
        stop=draft.stop,
        reply_tokens=reply_tokens,
        plain_cue=draft.plain_cue,
    )
