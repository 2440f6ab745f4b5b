"""cot: a belief first, then the answer behind it; without demonstrations or with k of them before each question.

The sides that are not asked with reasoning (`cot.sides`; the paper reasons on deeds only) are asked as `direct` asks.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from wdct_dist.config.schema import Config
from wdct_dist.errors import ConfigError
from wdct_dist.ids import stable_hash
from wdct_dist.items.demonstrations import Shot, load_demonstrations
from wdct_dist.items.types import SIDES, Item, Side
from wdct_dist.prompts.templates import Wording, reason_text, wording
from wdct_dist.prompts.variants.direct import direct
from wdct_dist.prompts.variants.types import Ask, Draft, Skip, Variant, framed, shown


class CotFamily:
    """`cot`, or `cot-3shot` with three demonstrations."""

    def expand(self, config: Config) -> list[tuple[str, Variant]]:
        """Raises `DataError` for demonstrations that cannot be read, `ConfigError` where there are too few."""
        cot = config.cot
        sides: frozenset[Side] = frozenset(side for side in SIDES if side in [asked.value for asked in cot.sides])
        if cot.shots == 0:
            return [("cot", Cot(sides))]
        demonstrations = load_demonstrations(cot.demonstrations)
        num_items = len({shot.item_id for shot in demonstrations})
        if num_items <= cot.shots:  # one of them may be the item's own
            raise ConfigError(
                f"cot.shots: {cot.shots} demonstrations of other items were asked for, {cot.demonstrations} has those of "
                f"{num_items} items; ask for fewer, or give more in cot.demonstrations."
            )
        return [(f"cot-{cot.shots}shot", Cot(sides, cot.shots, ShotPool(demonstrations, cot.demonstration_seed)))]


@dataclass(frozen=True, slots=True)
class Cot:
    """The reasoning variant."""

    sides: frozenset[Side]
    shots: int = 0
    pool: ShotPool | None = None

    def __call__(self, ask: Ask) -> Draft | Skip:
        if ask.side not in self.sides:
            return direct(ask)
        words = wording(ask.language)
        asked = reason_text(words, ask.question.question, ask.options_shown, ask.labels)
        if self.pool is not None:
            drawn = self.pool.draw(ask.item, ask.side, ask.language, self.shots)
            if len(drawn) < self.shots:
                return Skip(f"fewer than {self.shots} demonstrations in {ask.language} fit")
            asked = "\n\n".join([*(_shown_shot(words, one, ask.labels) for one in drawn), asked])
        return Draft(
            framed(asked, ask.settings, prefix=False),
            mode="reason",
            # a beginning that was asked for belongs before the label, not before the reasoning
            answer_cue="\n" + (ask.settings.answer_prefix.strip() or words.cue),
            stop=words.stop,
            plain_cue=words.belief_cue,
        )


@dataclass(frozen=True, slots=True)
class DrawnShot:
    """A demonstration and the order in which its own options are shown."""

    shot: Shot
    permutation: tuple[int, ...]


class ShotPool:
    """The demonstrations that items draw theirs from."""

    def __init__(self, demonstrations: Iterable[Shot], demonstration_seed: int) -> None:
        self._seed = demonstration_seed
        self._shots = [(shot, _plainly(shot.question.question)) for shot in demonstrations]

    def draw(self, item: Item, side: Side, language: str, shots: int) -> list[DrawnShot]:
        """The demonstrations before an item's question: `shots` of them, fewer where no more fit; the same for all its orders.

        None is the item's own, asks what one of its questions asks, has more options than the item, or comes twice. Those of the
        item's domain come before others; within both they are drawn by a seed of the item, the side and the language, so that
        leaving an item out changes no other's. Their options are shown in an order drawn too, so that their answers prefer no label.
        """
        questions = [item.question(one, spoken) for one in SIDES for spoken in {"en", language}]
        asked = {_plainly(question.question) for question in questions if question is not None}
        fitting = [
            shot
            for shot, text in self._shots
            if shot.language == language
            and shot.side in (None, side)
            and shot.item_id != item.item_id
            and len(shot.question.options) <= item.num_options
            and text not in asked
        ]
        generator = random.Random(stable_hash([self._seed, item.item_id, side, language]))
        generator.shuffle(fitting)
        fitting.sort(key=lambda shot: shot.domain != item.domain)
        first_of = {shot.item_id: shot for shot in reversed(fitting)}
        chosen = [shot for shot in fitting if first_of[shot.item_id] is shot][:shots]
        return [DrawnShot(shot, tuple(generator.sample(range(k), k))) for shot in chosen for k in [len(shot.question.options)]]


def _shown_shot(words: Wording, one: DrawnShot, labels: tuple[str, ...]) -> str:
    """A demonstration as text: asked as the question behind it is asked, and answered."""
    shot, own = one.shot, labels[: len(one.permutation)]
    asked = reason_text(words, shot.question.question, shown(shot.question, one.permutation), own)
    return words.demonstration.format(asked=asked, belief=shot.belief, label=own[one.permutation.index(shot.option)])


def _plainly(text: str) -> str:
    """Two questions are the same where they differ in case and white space alone."""
    return " ".join(text.casefold().split())


cot = CotFamily()
