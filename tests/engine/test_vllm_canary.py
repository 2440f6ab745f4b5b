"""Where the canary looks: the values that tell old weights from new ones, and the part of a tensor that a worker has. Without vLLM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from wdct_dist.engine.vllm_canary import NUM_COLUMNS, NUM_ROWS, Files, Place, _first, _is_computed_by_its_loader, _sample


@pytest.fixture
def place():
    """All of a tensor of 2,000 rows and 40 columns, in a layer of float32."""
    return Place("w", "parameter", torch.nn.Linear(40, 2000, bias=False), "weight", (0, 2000), (0, 40))


def test_the_sample_holds_the_columns_in_which_the_weights_differ(place):
    old = torch.randn(2000, 40, generator=torch.Generator().manual_seed(0))
    new = old.clone()
    new[:, 17] += 1
    rows, columns, differs = _sample(new, old, place)
    assert differs
    assert 17 in columns
    assert len(rows) == NUM_ROWS
    assert (int(rows[0]), int(rows[-1])) == (0, 1999)


def test_a_lone_difference_is_searched_for(place):
    old = torch.zeros(2000, 40)
    new = old.clone()
    new[1234, 5] = 1
    rows, columns, differs = _sample(new, old, place)
    assert differs
    assert rows.tolist() == [1234]
    assert 5 in columns


def test_a_difference_that_the_engine_s_precision_does_not_have_is_none(place):
    old = torch.ones(2000, 40)
    new = old + 1e-4
    place.module.bfloat16()
    assert not _sample(new, old, place)[2]


@pytest.mark.parametrize("old", [torch.zeros(2000, 40), torch.ones(3, 40), None])
def test_where_nothing_differs_or_nothing_is_known_the_sample_is_spread_evenly(old, place):
    rows, columns, differs = _sample(torch.zeros(2000, 40), old, place)
    assert not differs
    assert (len(rows), len(columns)) == (NUM_ROWS, NUM_COLUMNS)
    assert (int(columns[0]), int(columns[-1])) == (0, 39)


def test_a_sample_stays_in_the_part_that_a_worker_has(place):
    part = Place("w", "parameter", place.module, "weight", (500, 1000), (20, 40))
    rows, columns, differs = _sample(torch.ones(2000, 40), torch.zeros(2000, 40), part)
    assert differs
    assert rows.min() == 500
    assert rows.max() == 999
    assert columns.min() >= 20


@pytest.mark.parametrize(
    ("rank", "num_live", "num_whole", "replicas", "first"),
    [
        (0, 256, 256, 1, 0),  # not shared out
        (3, 64, 256, 1, 192),
        (1, 32, 64, 2, 0),  # two key heads over four workers: the first two have the first
        (3, 32, 64, 2, 32),
        (1, 60, 256, 1, None),  # no whole share
    ],
)
def test_a_share_begins_where_the_worker_s_rank_says(rank, num_live, num_whole, replicas, first):
    assert _first(SimpleNamespace(tp_rank=rank, tp_size=4), num_live, num_whole, replicas) == first


def test_tensors_of_several_files_are_found_by_name_as_tables(tmp_path):
    save_file({"norm": torch.ones(3), "scale": torch.tensor(2.0)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"kernel": torch.zeros(2, 3, 4)}, tmp_path / "model-00002-of-00002.safetensors")
    files = Files(tmp_path)
    assert files.names == ["kernel", "norm", "scale"]
    assert [tuple(files.table(name).shape) for name in files.names] == [(2, 12), (3, 1), (1, 1)]
    assert files.table("other") is None


def test_a_checkpoint_that_is_gone_has_no_tensors(tmp_path):
    assert Files(tmp_path / "gone").names == []


def test_a_parameter_whose_loader_computes_its_values_is_not_compared_with_the_file():
    """Mamba's `A` is `-exp(A_log)`, and vLLM gives `A_log` of the files the name `A`."""
    loaders = pytest.importorskip("vllm.model_executor.model_loader.weight_utils", reason="vLLM is not installed")
    computed, copied, plain = (torch.nn.Parameter(torch.zeros(4)) for _ in range(3))
    computed.weight_loader = loaders.composed_weight_loader(loaders.sharded_weight_loader(0), lambda x: -torch.exp(x))
    copied.weight_loader = loaders.sharded_weight_loader(0)
    assert _is_computed_by_its_loader(computed)
    assert not _is_computed_by_its_loader(copied)
    assert not _is_computed_by_its_loader(plain)
