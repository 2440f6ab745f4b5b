"""From preferences to what a model is trained on: supervised examples, and pairs of replies.

The messages are those that the evaluation's variant `direct` asks of the same item, side and order, made by the same code, so that the
trained prompt is the evaluated prompt. The reply is the label of the target (or the rejected) option in that order.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from wdct_dist.align.preferences import TRAIN, Preferences
from wdct_dist.align.types import Example, Pair
from wdct_dist.config.schema import AugmentConfig, Config, LabelSet, Orders
from wdct_dist.errors import BadInput, DataError
from wdct_dist.ids import stable_hash
from wdct_dist.items.types import Item
from wdct_dist.prompts.build import SkipTally, build_prompts, paraphrases_in
from wdct_dist.prompts.paraphrase import Paraphrases
from wdct_dist.prompts.types import Prompt

TrainedOrders = Literal["one", "rotations"]

LANGUAGE = "en"
"""What is trained in: the item's own text."""

MIX_RATIO = 9.0
"""Instruction examples to one item example, as in the paper."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How many ways of asking an item is trained in."""

    orders: TrainedOrders = "one"
    """All `rotations` of the options, as they are evaluated, or `one` of them an item, drawn with the seed."""
    paraphrases: bool = False
    """Also the item's paraphrases, as many as both of its sides have."""
    order_seed: int = 0


PLAIN = Augmentation()


@dataclass(frozen=True, slots=True)
class Mix:
    """Examples of items and instructions in the order of training."""

    examples: tuple[Example, ...]
    num_items: int
    num_instructions: int
    num_wanted: int
    """Instruction examples that the ratio asks for."""

    def lines(self) -> list[str]:
        """What is in it, and whether that is less than was asked for."""
        said = [f"{self.num_items:,} item examples and {self.num_instructions:,} instruction examples"]
        if self.num_instructions < self.num_wanted:
            said.append(
                f"the instruction set has {self.num_instructions:,} examples, {self.num_wanted:,} were asked for: each is used once and "
                f"none again, so the ratio is {self.num_instructions / self.num_items:.3g} to 1"
            )
        return said


def item_examples(
    preferences: Preferences,
    items: Iterable[Item],
    config: Config,
    augmentation: Augmentation = PLAIN,
    *,
    written: Paraphrases | None = None,
    skipped: SkipTally | None = None,
) -> list[Example]:
    """A supervised example for each item to train on and each way of asking it. Arguments as for `item_pairs`."""
    return [
        Example(prompt.messages, _reply(prompt, target), "item", prompt.item_id)
        for prompt, _, target in _asked(preferences, items, config, augmentation, written, skipped)
    ]


def item_pairs(
    preferences: Preferences,
    items: Iterable[Item],
    config: Config,
    augmentation: Augmentation = PLAIN,
    *,
    written: Paraphrases | None = None,
    skipped: SkipTally | None = None,
) -> list[Pair]:
    """A pair for each item to train on and each way of asking it, in the order of `items`.

    `config` is that of the evaluation: its labels, system message and beginning of the reply are trained with. `items` must have those
    that `preferences` trains on; others are passed over. Only the item's own language is trained in. `written` are paraphrases that a
    model wrote; what an item lacks is counted in `skipped`.

    Raises `DataError` where an item to train on is not in `items`.
    """
    return [
        Pair(prompt.messages, _reply(prompt, target), _reply(prompt, rejected), prompt.item_id)
        for prompt, rejected, target in _asked(preferences, items, config, augmentation, written, skipped)
    ]


def mix(examples: Sequence[Example], instructions: Sequence[Example], *, ratio: float = MIX_RATIO, seed: int = 0) -> Mix:
    """Item examples with `ratio` times as many instruction examples, drawn and shuffled with the seed; none is repeated.

    Where there are fewer than asked for, all of them are taken, and `Mix.lines` says so. Raises `DataError` for an empty mix: no item
    example, or no instruction example where the ratio asks for some.
    """
    if not examples:
        raise DataError("There is no item example to train on; choose domains or a side with baseline answers, or hold out fewer items.")
    num_wanted = round(ratio * len(examples))
    if num_wanted and not instructions:
        raise DataError(
            f"The instruction mix is empty, and {num_wanted:,} examples were asked for; give `bundled`, a set that has some, or ratio 0."
        )
    generator = random.Random(seed)
    drawn = generator.sample(list(instructions), min(num_wanted, len(instructions)))
    found = [*examples, *drawn]
    generator.shuffle(found)
    return Mix(tuple(found), len(examples), len(drawn), num_wanted)


def _asked(
    preferences: Preferences,
    items: Iterable[Item],
    config: Config,
    augmentation: Augmentation,
    written: Paraphrases | None,
    skipped: SkipTally | None,
) -> Iterator[tuple[Prompt, int, int]]:
    """Each prompt that is trained on, with the rejected and the target option."""
    rows = preferences.split(TRAIN).select("item_id", "baseline_option", "target_option").rows()
    options = {item_id: (rejected, target) for item_id, rejected, target in rows}
    chosen = [item for item in items if item.item_id in options]
    if len(chosen) < len(options):
        lacking = sorted(options.keys() - {item.item_id for item in chosen})
        raise DataError(
            f"{len(lacking):,} items to train on are not in the data (the first: {lacking[0]}); give the items of the baseline evaluation."
        )
    settings = asked_as(config, chosen, augmentation, written)
    tally = skipped if skipped is not None else SkipTally()
    prompts = build_prompts(chosen, settings, written=written, skipped=tally)
    by_item: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        if prompt.side == preferences.target_side:
            by_item.setdefault(prompt.item_id, []).append(prompt)
    for item_id, (rejected, target) in options.items():
        orders = sorted({prompt.permutation for prompt in by_item[item_id]})
        kept = set(orders)
        if augmentation.orders == "one":
            draw = random.Random(stable_hash([augmentation.order_seed, item_id, preferences.target_side]))
            kept = {draw.choice(orders)}
        yield from ((prompt, rejected, target) for prompt in by_item[item_id] if prompt.permutation in kept)


def asked_as(config: Config, items: Sequence[Item], augmentation: Augmentation, written: Paraphrases | None = None) -> Config:
    """The evaluation's configuration, asking no more than is trained on: `direct`, and the paraphrases in its very words."""
    if augmentation.orders not in ("one", "rotations"):
        raise BadInput(f"augment.orders: {augmentation.orders!r} came; allowed are one and rotations.")
    numbers: list[int] = []
    if augmentation.paraphrases:
        numbers = sorted({number for item in items for number in paraphrases_in(item, LANGUAGE, written)})
        if not numbers:
            raise DataError("augment.paraphrases: no item has a paraphrase of both sides; set it to false, or add some to the data.")
    return replace(
        config,
        variants=["direct", *(["augmented"] if numbers else [])],
        data=replace(config.data, languages=[LANGUAGE]),
        orders=Orders.rotations,
        augment=AugmentConfig(label_sets=[LabelSet.letters], wordings=[0], paraphrases=numbers or [0]),
    )


def _reply(prompt: Prompt, option: int) -> str:
    """The label that stands for the option, as it goes on from a reply that is begun."""
    label = prompt.labels[prompt.permutation.index(option)]
    last = prompt.messages[-1]
    begun = last.role == "assistant" and last.content and not last.content[-1].isspace()
    return f" {label}" if begun else label
