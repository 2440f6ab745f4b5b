"""What a training task asks of a cluster."""

from __future__ import annotations

import pytest

from wdct_dist.dispatch.task_size import TaskSize, size_task
from wdct_dist.errors import ConfigError

LAPTOP = [{"CPU": 2.0}]
MIXED = [{"memory": 1e9}, {"CPU": 8.0}, {"CPU": 4.0}]
GPUS = [{"CPU": 16.0}, {"CPU": 32.0, "GPU": 8.0}]


def test_without_a_gpu_a_task_takes_the_smallest_node_so_that_every_node_can_have_one() -> None:
    assert size_task(None, None, LAPTOP) == TaskSize(2.0, 0)
    assert size_task(None, None, MIXED) == TaskSize(4.0, 0)


def test_where_there_are_gpus_a_task_takes_one_and_a_core_unless_told_otherwise() -> None:
    assert size_task(None, None, GPUS) == TaskSize(1.0, 1)
    assert size_task(4, 1, GPUS) == TaskSize(4, 1)
    assert size_task(None, 0, GPUS) == TaskSize(16.0, 0)


def test_several_workers_take_what_leaves_room_for_all_of_them() -> None:
    assert size_task(None, None, LAPTOP, workers=2) == TaskSize(1.0, 0, 2)
    assert size_task(None, None, MIXED, workers=3) == TaskSize(4.0, 0, 3)
    assert size_task(None, None, [{"CPU": 5.0}, {"CPU": 3.0}], workers=4) == TaskSize(1.0, 0, 4)
    assert size_task(None, None, GPUS, workers=8) == TaskSize(1.0, 1, 8)
    with pytest.raises(ConfigError, match=r"resources\.workers: 9 came, and the cluster has room for 8 of 4 cores and 1 GPU at once"):
        size_task(4, None, GPUS, workers=9)


def test_what_no_node_has_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"resources\.gpus: 1 came, and no node of the cluster has a GPU"):
        size_task(None, 1, LAPTOP)
    with pytest.raises(ConfigError, match=r"resources\.cpus: 3 came, and the largest node that could train has 2 cores"):
        size_task(3, None, LAPTOP)
