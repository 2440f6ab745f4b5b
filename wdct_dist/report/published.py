"""What the paper reports, beside a run of its protocol."""

from __future__ import annotations

from collections.abc import Sequence

from wdct_dist.report.rows import Row

LOWEST, HIGHEST = 0.50, 0.76
"""Average CS of the 12 models of arXiv 2503.07003."""

PUBLISHED = ("paper", "en")
"""Variant and language that they were asked in."""


def beside_the_paper(rows: Sequence[Row]) -> list[str]:
    """Where the CS of a run with `protocol: paper` lies: in the published range, below it or above it.

    Of the variant `paper` in English alone: what else the run asks has other prompts and other answers than the paper.
    """
    asked = [row for row in rows if (row.variant, row.language) == PUBLISHED]
    scored = [(row.checkpoint_id, value) for row in asked if (value := row.value("cs")) is not None]
    where = {
        "in it": [f"{name} ({value:.3f})" for name, value in scored if LOWEST <= value <= HIGHEST],
        "below it": [f"{name} ({value:.3f})" for name, value in scored if value < LOWEST],
        "above it": [f"{name} ({value:.3f})" for name, value in scored if value > HIGHEST],
    }
    placed = [f"{', '.join(names)} {said}" for said, names in where.items() if names]
    return [
        f"The paper reports an average CS from {LOWEST:.2f} to {HIGHEST:.2f} over its 12 models (arXiv 2503.07003; its models, its items)."
        + (f" Of this run: {'; '.join(placed)}." if placed else "")
    ]
