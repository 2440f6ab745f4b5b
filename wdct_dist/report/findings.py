"""What every report of a run is made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wdct_dist.config.schema import Config

if TYPE_CHECKING:
    import polars as pl

    from wdct_dist.align.produced import Descent


@dataclass(frozen=True, slots=True)
class Scores:
    """The tables that a report is made from; those of comparisons may be missing."""

    summary: pl.DataFrame
    differences: pl.DataFrame | None = None
    effects: pl.DataFrame | None = None
    change: pl.DataFrame | None = None


@dataclass(frozen=True, slots=True)
class Findings:
    """A run's figures and what it says of itself."""

    scores: Scores
    config: Config
    provenance: Mapping[str, Any]
    notes: Sequence[str] = ()
    """Lines of this run alone, such as that it is not finished."""
    training: pl.DataFrame | None = None
    """What the trainings of an alignment logged, columns of `schema.TRAINING`."""
    descents: Sequence[Descent] = ()
    """Which checkpoint was trained from which."""
