"""What a run measured, kept for the forecasts of later ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from wdct_dist.checkpoints.sources import scripted_checkpoint
from wdct_dist.config.schema import Config, Dtype, EngineConfig, SamplingConfig
from wdct_dist.dispatch.costs import Costs
from wdct_dist.dispatch.plan import Unit
from wdct_dist.dispatch.rates import Rate, expected_costs, recall, remember, remember_costs
from wdct_dist.tables.prompts_file import PromptIndex, VariantRange


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WDCT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_rate_is_recalled_for_the_same_architecture_and_precision_alone() -> None:
    remember(scripted_checkpoint("a"), Config(), Rate(12.5, 9.0))
    assert recall(scripted_checkpoint("b"), Config()) == Rate(12.5, 9.0)
    assert recall(scripted_checkpoint("b"), Config(engine=EngineConfig(dtype=Dtype.float32))) is None


def test_a_rate_of_short_reasoning_says_nothing_of_long_reasoning() -> None:
    units = [Unit("a", "d", "cot", 0, start, start + 256) for start in (0, 256)]

    def patience_s(max_new_tokens: int) -> float:
        config = Config(variants=["cot"], sampling=SamplingConfig(max_new_tokens=max_new_tokens))
        remember(scripted_checkpoint("a"), Config(variants=["cot"], sampling=SamplingConfig(max_new_tokens=64)), Rate(20.0, 9.0))
        return expected_costs([scripted_checkpoint("a")], config, PromptIndex(512, (VariantRange("cot", 0, 512),), "d")).patience_s(units)

    assert patience_s(64) < 600, "twenty times what it took"
    assert patience_s(4096) >= 512 / 20.0 * 4096 / 64, "or a sound engine is ended"


def test_a_cache_that_cannot_be_read_or_written_is_let_be(cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    remember(scripted_checkpoint("a"), Config(), Rate(1.0, 1.0))
    assert recall(scripted_checkpoint("a"), Config()) is None


RANGES = (VariantRange("direct", 0, 100), VariantRange("cot", 100, 200))
INDEX = PromptIndex(200, RANGES, "d", {"direct": 40_000, "cot": 40_000}, {"direct": 0, "cot": 100})


def test_a_rate_is_shared_among_the_variants_by_their_tokens() -> None:
    remember(scripted_checkpoint("a"), Config(), Rate(10.0, 9.0, 1.5))
    costs = expected_costs([scripted_checkpoint("b")], Config(), INDEX)
    direct, cot = costs.prompt_s("b", "direct"), costs.prompt_s("b", "cot")
    # 100 prompts of each take the 20 s that 200 prompts take at 10 a second; one that reasons takes longer
    assert 100 * (direct + cot) == pytest.approx(20.0)
    assert cot > 4 * direct
    assert costs.load_s("b") == pytest.approx(9.0)
    assert costs.load_s("b", after="b") == pytest.approx(1.5)


def test_without_a_rate_nothing_is_expected_in_seconds() -> None:
    assert not expected_costs([scripted_checkpoint("b")], Config(), INDEX).measured


def test_what_a_run_measured_is_remembered_for_each_checkpoint_that_did_enough() -> None:
    config, costs = Config(), Costs()
    costs.load_took("a", 7.0, swapped=False)
    costs.unit_took(Unit("a", "d", "direct", 0, 0, 40), 4.0)
    remember_costs([scripted_checkpoint("a")], config, costs)
    assert recall(scripted_checkpoint("a"), config) is None, "40 prompts are too few to tell"
    costs.unit_took(Unit("a", "d", "direct", 0, 40, 80), 6.0)
    remember_costs([scripted_checkpoint("a")], config, costs)
    assert recall(scripted_checkpoint("a"), config) == Rate(8.0, pytest.approx(7.0))
