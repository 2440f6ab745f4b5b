"""What the most probable tokens of a reply say about the labels: probabilities where they can be known, bounds where not.

A server gives the logprobs of its most probable tokens alone, by their texts. The probability of a label is the sum over its spellings
among them (`A`, ` A`). A label of several tokens, such as `(a)`, is followed along the tokens that were generated. A label that is not
among the tokens is not given a number: each of its spellings is at most as probable as the least of the tokens, and all that is
unseen together has at most what is left of 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from wdct_dist.engine.endpoint_replies import Place

MOST_SPELLINGS = 4
"""Tokens that can spell one label behind a prompt. In the vocabularies of SmolLM2, GPT-2 and Llama 2 a letter has two: `A` and ` A`."""

ROUNDING = 1e-6
"""Servers round logprobs: what is left of 1 is never taken to be less than this."""

NEGLIGIBLE = 0.01
"""Beginnings of labels that were not generated are no more followed; where they have more than this share, the labels are bounded."""


@dataclass(frozen=True, slots=True)
class LabelReading:
    """By label place. Natural logs."""

    lower: tuple[float | None, ...]
    """Of the probability that was seen to fall on each label; None: none was."""
    upper: tuple[float, ...]
    """Of what it is at most, with spellings that were not seen."""
    mass: float
    """Probability that was seen to fall on any label, 0 to 1."""
    logprobs: tuple[float, ...] | None
    """Of the labels, where all were seen: spellings beyond the tokens shown are left out. None where one is only bounded."""

    @property
    def surely(self) -> int | None:
        """Place of the label that is the most probable one whatever the bounds hide; None: there is none."""
        known = [-math.inf if value is None else value for value in self.lower]
        best = known.index(max(known))
        others = [value for place, value in enumerate(self.upper) if place != best]
        return best if known[best] > max(others) else None


def read_labels(labels: Sequence[str], places: Sequence[Place], num_asked: int) -> LabelReading | None:
    """Reads the labels where a reply begins. None where the server gave no logprobs there.

    `num_asked`: how many of the most probable tokens were asked for; a server may add the one that it drew.
    """
    if not places or not places[0].top:
        return None
    seen = [0.0] * len(labels)
    unfollowed = [0.0] * len(labels)
    unseen, said, path = 0.0, "", 1.0
    for place in places:
        unseen += path * _unseen(place, num_asked)
        going_on = 0.0
        for token, logprob in place.top:
            prob, text = path * math.exp(logprob), (said + token).strip()
            if text in labels:
                seen[labels.index(text)] += prob
                continue
            begun = [number for number, label in enumerate(labels) if text and label.startswith(text)]
            if token == place.token and (begun or not (said + token).strip(" ")):
                going_on += prob
            else:
                for number in begun:
                    unfollowed[number] += prob
        said, path = said + place.token, going_on
        if path == 0:
            break
    if path and said.strip():  # the reply ended within a label
        for number, label in enumerate(labels):
            unfollowed[number] += path if label.startswith(said.strip()) else 0.0
    mass = min(1.0, math.fsum(seen))
    if max(unfollowed) <= NEGLIGIBLE * mass:
        unfollowed = [0.0] * len(labels)
    logs = tuple(min(0.0, math.log(prob)) for prob in seen if prob > 0)
    return LabelReading(
        tuple(min(0.0, math.log(prob)) if prob > 0 else None for prob in seen),
        tuple(min(0.0, math.log(prob + unseen + hidden)) for prob, hidden in zip(seen, unfollowed, strict=True)),
        mass,
        logs if len(logs) == len(labels) and not any(unfollowed) else None,
    )


def _unseen(place: Place, num_asked: int) -> float:
    """The most that a label can have whose token is not among the most probable ones of a place."""
    probs = sorted((math.exp(logprob) for _, logprob in place.top), reverse=True)
    if not probs:
        return 1.0
    least = probs[min(num_asked, len(probs)) - 1]
    return min(MOST_SPELLINGS * least, max(1.0 - math.fsum(probs), ROUNDING))
