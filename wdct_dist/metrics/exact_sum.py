"""Sums that do not depend on the order of their terms, so that the same answers give the same bytes.

Adding floats rounds after every step, and a streaming engine adds rows as they come: two runs over the same answers differed in
the last digit of many PCS. Sorting first does not help, since the optimiser knows that a sum needs no order and drops the sort.
Whole numbers add exactly, so terms are taken as multiples of 2**-44 (6e-14; a probability under half of that counts as 0).
Terms of at most 1 can be added half a million times: the pairs of all 720 orders of six options.
"""

from __future__ import annotations

import polars as pl

SCALE = 2.0**44


def exact_sum(terms: pl.Expr) -> pl.Expr:
    """The sum of an aggregation's terms; null ones are left out, the sum of none is 0."""
    return _multiples(terms).sum() / SCALE


def exact_mean(terms: pl.Expr) -> pl.Expr:
    """The mean of an aggregation's terms that are not null; null where there are none."""
    return (_multiples(terms).sum() / (terms.count() * SCALE)).fill_nan(None)


def _multiples(terms: pl.Expr) -> pl.Expr:
    return (terms.cast(pl.Float64) * SCALE).round().cast(pl.Int64)
