"""Adapters beside each other in one live engine, on a llama of two layers with peft's own adapters, in float32."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from wdct_dist.checkpoints.describe import describe
from wdct_dist.checkpoints.node_copy import apart_on_this_node, on_this_node
from wdct_dist.checkpoints.types import Source
from wdct_dist.config.schema import Dtype, EngineConfig, PromptConfig, SamplingConfig
from wdct_dist.engine.protocol import Sharing
from wdct_dist.errors import EngineError, SwapRefused

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

TOLERANCE = 1e-4
"""Of a logprob, shared against merged, in float32; measured 2e-5."""

SHARED = ("four", "sixteen")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WDCT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def adapters(adapter_family, cache):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    base = Source("base", str(adapter_family["base"]))
    return {
        name: describe(Source(name, str(adapter_family[name]), base=base), allow_pickle=False, trust_remote_code=False)
        for name in ("four", "sixteen", "odd")
    }


@pytest.fixture(scope="module")
def start():
    """Starts engines one after the other; the last one is closed with the module."""
    from wdct_dist.engine.vllm_engine import start_vllm

    running = []

    def started(checkpoint, sharing=None):
        while running:
            running.pop().close()
        settings = EngineConfig(dtype=Dtype.float32, max_model_len=512, cpu_cache_gib=0.1)
        running.append(start_vllm(checkpoint, settings, PromptConfig(), SamplingConfig(), 1, sharing))
        return running[-1]

    yield started
    while running:
        running.pop().close()


@pytest.fixture
def share(start, adapters):
    """A fresh engine of the base, with places for so many adapters."""
    base = adapters["four"].base
    return lambda num_slots=3: start(base, Sharing(base.digest, 16, num_slots))


@pytest.fixture
def prompts(make_prompt):
    text = "Is {} or {} the better number? Say which of the two options you hold to be right.\nA. {}\nB. {}"
    return [make_prompt(text.format(n, n + 1, n, n + 1), prompt_id=str(n)) for n in range(16)]


def apart(checkpoint):
    lease = apart_on_this_node(checkpoint, checkpoint.base.directory, max_gib=None, allow_pickle=False)
    return replace(checkpoint, directory=lease.directory)


def logprobs(responses):
    assert [one.error for one in responses] == [None] * len(responses)
    return [value for one in responses for value in one.option_logprobs]


def test_adapters_in_one_batch_answer_as_merged_ones_do(start, share, adapters, prompts, monkeypatch):
    from vllm.lora.model_manager import LoRAModelManager

    merged = {}
    for name in SHARED:
        with on_this_node(adapters[name], max_gib=None, allow_pickle=False) as lease:
            merged[name] = start(replace(adapters[name], directory=lease.directory)).answer(prompts, 0)
    batches, hold, held = [], threading.Event(), threading.Event()
    real = LoRAModelManager.set_adapter_mapping

    def mapped(self, mapping):
        batches.append(set(mapping.prompt_mapping))
        if hold.is_set():
            hold.clear()
            held.set()
            deadline = time.monotonic() + 60
            while engine._vllm._inbox.qsize() < len(SHARED) and time.monotonic() < deadline:
                time.sleep(0.01)
        return real(self, mapping)

    monkeypatch.setattr(LoRAModelManager, "set_adapter_mapping", mapped)
    engine = share()
    swaps = {name: engine.take(apart(adapters[name])) for name in SHARED}
    # the engine is at another call until both are there, however late a thread comes
    hold.set()
    with ThreadPoolExecutor(1 + len(SHARED)) as pool:
        first = pool.submit(engine.answer_as, adapters["four"].digest, prompts[:1], 0)
        assert held.wait(120)
        answered = dict(zip(SHARED, pool.map(lambda name: engine.answer_as(adapters[name].digest, prompts, 0), SHARED), strict=True))
    assert first.result()[0].error is None
    for name in SHARED:
        apart_by = [abs(a - b) for a, b in zip(logprobs(answered[name]), logprobs(merged[name]), strict=True)]
        assert max(apart_by) < TOLERANCE
        assert [one.rendered_digest for one in answered[name]] == [one.rendered_digest for one in merged[name]]
    assert max(abs(a - b) for a, b in zip(logprobs(answered["four"]), logprobs(answered["sixteen"]), strict=True)) > 0.1
    assert {1, 2} in batches
    assert not [batch for batch in batches if 0 in batch and len(batch) > 1]  # 0 is the base
    # an A and a B for each adapted layer, all of which had been zero
    assert [(swaps[name].canary.num_tensors, swaps[name].canary.num_told_apart) for name in SHARED] == [(12, 12), (28, 28)]
    assert any("not merged" in note for note in engine.facts.notes)


def test_neither_the_base_nor_an_adapter_that_was_not_taken_is_answered_for(share, adapters, prompts):
    engine = share()
    with pytest.raises(EngineError, match="does not answer for their base"):
        engine.answer(prompts, 0)
    with pytest.raises(SwapRefused, match="adapters share the engine"):
        engine.swap(adapters["four"].base)
    with pytest.raises(EngineError, match="does not have the adapter"):
        engine.answer_as(adapters["four"].digest, prompts, 0)
    engine.take(apart(adapters["four"]))
    before = engine.answer_as(adapters["four"].digest, prompts, 0)
    with pytest.raises(EngineError, match=r"the adapter was not loaded: .*lora_alpha"):
        engine.take(apart(adapters["odd"]))
    assert logprobs(engine.answer_as(adapters["four"].digest, prompts, 0)) == logprobs(before)


def test_an_idle_adapter_makes_room_and_answers_as_before_when_it_is_taken_again(share, adapters, prompts):
    engine = share(num_slots=1)
    first, second = (apart(adapters[name]) for name in SHARED)
    engine.take(first)
    before = engine.answer_as(first.digest, prompts, 0)
    engine.take(second)
    other = engine.answer_as(second.digest, prompts, 0)
    with pytest.raises(EngineError, match="does not have the adapter"):
        engine.answer_as(first.digest, prompts, 0)
    engine.take(first)
    assert logprobs(engine.answer_as(first.digest, prompts, 0)) == logprobs(before) != logprobs(other)


def test_the_canary_finds_another_adapter_in_the_place_of_the_new_one(share, adapters, monkeypatch):
    from vllm.lora.model_manager import LRUCacheLoRAModelManager

    engine = share()
    engine.take(apart(adapters["four"]))
    real = LRUCacheLoRAModelManager.activate_adapter

    def exchanged(self, number):
        result = real(self, number)
        self.lora_index_to_id[0], self.lora_index_to_id[1] = self.lora_index_to_id[1], self.lora_index_to_id[0]
        return result

    with monkeypatch.context() as patch:
        patch.setattr(LRUCacheLoRAModelManager, "activate_adapter", exchanged)
        with pytest.raises(EngineError, match=r"does not have the adapter as its file has it: .*down_proj \(A\): 4096 of 4096 "):
            engine.take(apart(adapters["sixteen"]))


def test_the_canary_finds_requests_that_reach_the_place_of_another_adapter(share, adapters, monkeypatch):
    from vllm.lora.punica_wrapper.punica_base import PunicaWrapperBase

    engine = share()
    engine.take(apart(adapters["four"]))
    real = PunicaWrapperBase._update_base_metadata

    def astray(self, mapping, lora_index_to_id, *rest):
        real(self, mapping, [lora_index_to_id[1], lora_index_to_id[0], *lora_index_to_id[2:]], *rest)

    monkeypatch.setattr(PunicaWrapperBase, "_update_base_metadata", astray)
    with pytest.raises(EngineError, match=f"answered as one for {adapters['four'].digest[:12]}: the adapter is not applied"):
        engine.take(apart(adapters["sixteen"]))


def test_the_canary_finds_values_that_an_earlier_adapter_left(share, adapters, monkeypatch):
    from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA

    engine = share(num_slots=1)
    engine.take(apart(adapters["sixteen"]))
    monkeypatch.setattr(BaseLinearLayerWithLoRA, "reset_lora", lambda self, index: None)
    with pytest.raises(EngineError, match=r"down_proj has values that are not the adapter's"):
        engine.take(apart(adapters["four"]))


def test_the_canary_finds_an_adapter_that_is_there_and_is_not_applied(share, adapters, monkeypatch):
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    engine = share()
    monkeypatch.setattr(PunicaWrapperCPU, "add_lora_linear", lambda self, y, *rest, **more: y)
    with pytest.raises(EngineError, match="answered as one for the base: the adapter is not applied"):
        engine.take(apart(adapters["four"]))
