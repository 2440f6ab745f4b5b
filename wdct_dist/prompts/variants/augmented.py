"""augmented: the direct question under other label sets, instruction wordings, item texts and system messages.

The full product of the factors or a seeded sample of it; each combination is a variant of its own, whose name says its levels:
`augmented/labels=digits/wording=2/paraphrase=0/system=none`.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from wdct_dist.config.schema import AugmentConfig, Config, LabelSet, PromptConfig
from wdct_dist.errors import ConfigError
from wdct_dist.prompts.templates import WORDINGS, direct_text, wording
from wdct_dist.prompts.variants.types import Ask, Draft, Skip, Variant, framed, shown

NAME = "augmented"

LABEL_SETS: Mapping[LabelSet, tuple[str, ...]] = {
    # nine: `1` beside `10` could not be told apart
    LabelSet.digits: tuple("123456789"),
    LabelSet.parens: tuple(f"({letter})" for letter in "abcdefghijklmnopqrstuvwxyz"),
}
"""`letters` are `prompt.labels`."""

NUM_WORDINGS = min(len(words.direct) for words in WORDINGS.values())


class AugmentedFamily:
    """One variant for each combination of levels."""

    def expand(self, config: Config) -> list[tuple[str, Variant]]:
        """The combinations, those that share the beginning of their prompts side by side.

        Raises `ConfigError` for wordings that there are not, and for a sample larger than the product.
        """
        augment = config.augment
        unknown = [number for number in augment.wordings if number >= NUM_WORDINGS]
        if unknown:
            raise ConfigError(f"augment.wordings: {unknown} came; there are the wordings 0 to {NUM_WORDINGS - 1}.")
        combinations = [
            Augmented(labels, number, paraphrase, level, system)
            for (level, system), paraphrase, labels, number in itertools.product(
                _systems(augment, config.prompt), augment.paraphrases, augment.label_sets, augment.wordings
            )
        ]
        if augment.sample is not None:
            if augment.sample > len(combinations):
                raise ConfigError(
                    f"augment.sample: {augment.sample} combinations were asked for, the factors have {len(combinations)}; "
                    "ask for fewer, or set it to null for all."
                )
            kept = random.Random(augment.augment_seed).sample(range(len(combinations)), augment.sample)
            combinations = [combinations[index] for index in sorted(kept)]
        return [(one.name, one) for one in combinations]


@dataclass(frozen=True, slots=True)
class Augmented:
    """One combination of levels."""

    label_set: LabelSet
    wording_number: int
    paraphrase: int
    """0: the item's own text."""
    system_level: str
    system: str | None

    @property
    def name(self) -> str:
        levels = f"labels={self.label_set.value}/wording={self.wording_number}/paraphrase={self.paraphrase}/system={self.system_level}"
        return f"{NAME}/{levels}"

    def __call__(self, ask: Ask) -> Draft | Skip:
        question = ask.question
        if self.paraphrase > 0:
            if self.paraphrase not in ask.paraphrases:
                return Skip(f"no paraphrase {self.paraphrase} of both questions in {ask.language}")
            question = ask.paraphrases[self.paraphrase][ask.side]
        labels = LABEL_SETS.get(self.label_set, ask.labels)[: len(ask.labels)]
        if len(labels) < len(ask.labels):
            return Skip(f"more options than there are {self.label_set.value}")
        words = wording(ask.language)
        text = direct_text(words, question.question, shown(question, ask.permutation), labels, self.wording_number)
        return Draft(framed(text, replace(ask.settings, system=self.system)), labels=labels, plain_cue=words.cue)


def _systems(augment: AugmentConfig, prompt: PromptConfig) -> list[tuple[str, str | None]]:
    """Level names and texts of `augment.systems`: `none` for no message, `own` for the run's, else the place in the list from 0."""
    own = "none" if prompt.system is None else "own"
    return [(own, prompt.system) if text is None else (str(place), text) for place, text in enumerate(augment.systems)]


augmented = AugmentedFamily()
