from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.checkpoints.revisions import read_revisions
from wdct_dist.checkpoints.sources import parse_sources, scripted_checkpoints
from wdct_dist.checkpoints.types import Source
from wdct_dist.errors import ConfigError


def test_a_list_of_revisions_is_a_checkpoint_each_in_the_order_given(tmp_path: Path) -> None:
    assert parse_sources([{"path": "org/model", "revisions": ["step2000", "step1000"]}], tmp_path) == [
        Source("org/model@step2000", "org/model", "step2000"),
        Source("org/model@step1000", "org/model", "step1000"),
    ]


def test_a_range_counts_to_its_end_inclusive() -> None:
    assert read_revisions({"pattern": "step{}", "from": 1000, "to": 3000, "step": 1000}) == ["step1000", "step2000", "step3000"]
    assert read_revisions({"pattern": "step{}", "from": 1, "to": 8, "step": 5}) == ["step1", "step6"]
    assert len(read_revisions({"pattern": "step{}", "from": 1000, "to": 143000, "step": 1000})) == 143


def test_a_range_may_pad_its_numbers_and_counts_by_one_unless_told() -> None:
    assert read_revisions({"pattern": "it_{:04}-main", "from": 9, "to": 11}) == ["it_0009-main", "it_0010-main", "it_0011-main"]


def test_an_id_names_all_revisions_with_the_revision_behind_it(tmp_path: Path) -> None:
    entry = {"path": "org/model", "id": "pythia", "revisions": ["step1", "step2"]}
    assert [source.checkpoint_id for source in parse_sources([entry], tmp_path)] == ["pythia@step1", "pythia@step2"]
    assert [checkpoint.checkpoint_id for checkpoint in scripted_checkpoints([entry])] == ["pythia@step1", "pythia@step2"]


@pytest.mark.parametrize(
    ("revisions", "message"),
    [
        ([], "`revisions`: [] is not allowed; allowed is a list such as [step1000, step2000], or a range"),
        ("step1", "`revisions`: 'step1' is not allowed"),
        ([1000], "1000 is no name of a revision"),
        (["a", "a"], "has 'a' twice"),
        ({"pattern": "step", "from": 1, "to": 2}, "'step' needs one place for the number"),
        ({"pattern": "{}{}", "from": 1, "to": 2}, "needs one place for the number"),
        ({"pattern": "{0.__class__}", "from": 1, "to": 2}, "needs one place for the number"),
        ({"from": 1, "to": 2}, "`revisions.pattern`: None needs one place"),
        ({"pattern": "{}", "from": 1}, "`revisions.to`: None is not allowed; allowed is a whole number from 0 on"),
        ({"pattern": "{}", "from": 1, "to": 2, "step": True}, "`revisions.step`: True is not allowed"),
        ({"pattern": "{}", "from": 2, "to": 1}, "from 2 to 1 in steps of 1 is no range"),
        ({"pattern": "{}", "from": 0, "to": 99_999_999}, "is no range of 1 to 10,000 revisions"),
        ({"pattern": "{}", "from": 1, "to": 2, "by": 1}, "unknown key 'by'"),
    ],
)
def test_revisions_that_cannot_be_meant_are_refused_with_what_is_allowed(revisions: object, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read_revisions(revisions)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"path": "org/m", "revision": "a", "revisions": ["b"]}, "has `revision` and `revisions`; give one of them"),
        ({"path": "org/m@a", "revisions": ["b"]}, "also has `revision: b`; give one revision"),
        ({"path": ".", "revisions": ["b"]}, "only hub ids have revisions"),
    ],
)
def test_only_a_hub_id_without_a_revision_of_its_own_has_revisions(tmp_path: Path, entry: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_sources([entry], tmp_path)
    assert message in str(raised.value)
