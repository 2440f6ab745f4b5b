"""The prompts of a run, in a stream: variant by variant, item by item, an item's orders side by side.

The order of prompts is the order in which engines get them. The orders of one question share everything up to the first option,
so they stand together and the prefix cache still has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError
from wdct_dist.ids import stable_hash
from wdct_dist.items.types import SIDES, Item
from wdct_dist.prompts.permute import permutations
from wdct_dist.prompts.types import Prompt
from wdct_dist.prompts.variants.registry import find_variant
from wdct_dist.prompts.variants.types import Ask, Variant


def build_prompts(items: Iterable[Item], config: Config) -> Iterator[Prompt]:
    """Every prompt of the run, once. `items` is iterated once a variant."""
    for name in config.variants:
        variant = find_variant(name)
        for item in items:
            yield from item_prompts(item, name, variant, config)


def item_prompts(item: Item, name: str, variant: Variant, config: Config) -> Iterator[Prompt]:
    """The prompts of one item in one variant: every language that it has, both sides, every order."""
    labels = tuple(config.prompt.labels[: item.num_options])
    if len(labels) < item.num_options:
        raise ConfigError(
            f"prompt.labels: {len(labels)} labels came, item {item.item_id} has {item.num_options} options; give more labels."
        )
    for language in config.data.languages:
        for side in SIDES:
            question = item.question(side, language)
            if question is None:
                continue
            for permutation in permutations(config.orders, item.num_options, item_id=item.item_id, side=side, order_seed=config.order_seed):
                draft = variant(Ask(item, side, language, question, permutation, labels, config.prompt))
                content = [[message.role, message.content] for message in draft.messages]
                identity = [item.item_id, side, name, language, permutation, labels, content, draft.mode]
                yield Prompt(
                    prompt_id=stable_hash(identity),
                    item_id=item.item_id,
                    domain=item.domain,
                    side=side,
                    variant=name,
                    language=language,
                    permutation=permutation,
                    labels=labels,
                    messages=draft.messages,
                    mode=draft.mode,
                )
