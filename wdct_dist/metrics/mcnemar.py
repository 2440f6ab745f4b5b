"""McNemar's exact test: did more items change in one direction than in the other? (McNemar 1947; exact form: conditional binomial.)"""

from __future__ import annotations

import math

EXACT_TERMS = 1000
"""Up to so many discordant items the first term is a ratio of whole numbers; beyond, whole numbers take long and logarithms do."""


def mcnemar_exact(left_only: int, right_only: int) -> float:
    """Two-sided p-value of `left_only` against `right_only` discordant items under a fair coin; 1 where there are none.

    Twice the smaller binomial tail, at most 1. Relative error, measured: 1e-15 up to `EXACT_TERMS` discordant items, 1e-9 for a
    million, 2e-8 for ten million (from the difference of large values of `lgamma`). A p-value under 1e-308 is 0.
    """
    assert left_only >= 0, left_only
    assert right_only >= 0, right_only
    fewer, num_discordant = min(left_only, right_only), left_only + right_only
    if 2 * fewer == num_discordant:
        return 1.0
    term = _probability(fewer, num_discordant)
    tail = 0.0
    # From the largest term downwards, until a term no longer changes the sum: about 5 * sqrt(num_discordant) terms.
    for successes in range(fewer, -1, -1):
        if tail + term == tail:
            break
        tail += term
        term *= successes / (num_discordant - successes + 1)
    return min(1.0, 2 * tail)


def _probability(successes: int, tosses: int) -> float:
    """Of exactly so many heads in `tosses` of a fair coin."""
    if tosses <= EXACT_TERMS:
        return math.comb(tosses, successes) / (1 << tosses)
    log = math.lgamma(tosses + 1) - math.lgamma(successes + 1) - math.lgamma(tosses - successes + 1) - tosses * math.log(2)
    return math.exp(log)
