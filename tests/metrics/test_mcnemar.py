"""The exact test, against published values."""

from __future__ import annotations

import pytest

from wdct_dist.metrics.mcnemar import EXACT_TERMS, mcnemar_exact


@pytest.mark.parametrize(
    ("left_only", "right_only", "published", "places"),
    [
        # Airway hyper-responsiveness before and after transplantation (Bentur et al.), in Fagerland, Lydersen and Laake,
        # BMC Medical Research Methodology 13:91 (2013): exact conditional p = 0.0703.
        (1, 7, 0.0703, 4),
        # Stata's matched case-control example (mccxmpl): exact significance probability 0.2266.
        (8, 3, 0.2266, 4),
        # Two media for culturing tuberculosis, Armitage and Berry (1994) p. 127, in StatsDirect's help: 0.0129.
        (12, 2, 0.0129, 4),
        # `mcci 84 17 3 166` as Stata prints it: 0.0026.
        (17, 3, 0.0026, 4),
    ],
)
def test_published_examples_come_out(left_only: int, right_only: int, published: float, places: int) -> None:
    assert round(mcnemar_exact(left_only, right_only), places) == published


@pytest.mark.parametrize(
    ("left_only", "right_only", "by_hand"),
    [(0, 0, 1.0), (3, 3, 1.0), (0, 1, 1.0), (0, 5, 2 / 32), (1, 3, 2 * (1 + 4) / 16), (2, 8, 2 * (1 + 10 + 45) / 1024)],
)
def test_small_counts_worked_by_hand(left_only: int, right_only: int, by_hand: float) -> None:
    assert mcnemar_exact(left_only, right_only) == by_hand


@pytest.mark.parametrize("counts", [(4, 11), (480, 560), (5_000, 5_200)])
def test_the_direction_does_not_matter(counts: tuple[int, int]) -> None:
    assert mcnemar_exact(*counts) == mcnemar_exact(*reversed(counts))


def test_whole_numbers_and_logarithms_meet_where_one_takes_over() -> None:
    def by_whole_numbers(fewer: int, tosses: int) -> float:
        import math

        return 2 * sum(math.comb(tosses, successes) for successes in range(fewer + 1)) / 2**tosses

    for tosses in (EXACT_TERMS - 1, EXACT_TERMS, EXACT_TERMS + 1, EXACT_TERMS + 40):
        fewer = tosses // 2 - 30
        assert mcnemar_exact(fewer, tosses - fewer) == pytest.approx(by_whole_numbers(fewer, tosses), rel=1e-11)


def test_a_million_discordant_items_are_as_the_normal_law_says() -> None:
    from statistics import NormalDist

    # 500,000 less 980 of a million tosses: 1.96 standard deviations of 500, with the continuity correction
    expected = 2 * NormalDist().cdf(-(980 - 0.5) / 500)
    assert mcnemar_exact(500_000 - 980, 500_000 + 980) == pytest.approx(expected, rel=1e-5)


def test_overwhelming_evidence_is_zero_and_no_error() -> None:
    assert mcnemar_exact(0, 100_000) == 0.0
