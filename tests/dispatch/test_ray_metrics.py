"""The run's name in metrics. What is exported, and with which values, is read from a real node in test_ray_job.py."""

from __future__ import annotations

import pytest

from wdct_dist.dispatch.ray_metrics import run_name


@pytest.mark.parametrize(
    ("run_dir", "name"),
    [
        ("runs/tonight", "tonight"),
        ("/data/runs/tonight/", "tonight"),
        ("tonight", "tonight"),
        ("s3://key:secret@bucket/runs/tonight?endpoint_override=http%3A%2F%2Fstore%3A9000/&region=x", "tonight"),
    ],
)
def test_a_run_is_named_by_the_last_part_of_its_path_without_addresses_and_keys(run_dir: str, name: str) -> None:
    assert run_name(run_dir) == name
