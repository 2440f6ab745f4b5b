"""A request's parameters in vLLM's words. That vLLM then answers with exact logprobs is shown in test_vllm_engine.py."""

from __future__ import annotations

import pytest

from wdct_dist.config.schema import SamplingConfig
from wdct_dist.engine.steps import Generation
from wdct_dist.engine.vllm_request import Params, refusals

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

pytest.importorskip("vllm", reason="vLLM is not installed")


@pytest.fixture
def params() -> Params:
    return Params(SamplingConfig(temperature=0.7, top_p=0.9))


def test_a_request_without_a_seed_is_greedy_whatever_the_settings_of_sampling(params: Params) -> None:
    made = params.of(Generation((1, 2), max_tokens=4))
    assert (made.temperature, made.top_p, made.seed, made.max_tokens) == (0.0, 1.0, None, 4)


def test_a_request_with_a_seed_is_sampled_by_the_settings(params: Params) -> None:
    made = params.of(Generation((1, 2), max_tokens=4, seed=5))
    assert (made.temperature, made.top_p, made.seed) == (0.7, 0.9, 5)


def test_labels_are_read_by_their_ids_and_the_vocabulary_is_never_sorted(params: Params) -> None:
    made = params.of(Generation((1, 2), read=(7, 8), max_tokens=1))
    assert made.logprob_token_ids == [7, 8]
    assert made.logprobs is None
    assert params.of(Generation((1, 2), max_tokens=1)).logprob_token_ids is None


def test_text_is_made_by_vllm_only_where_it_looks_for_stop_strings(params: Params) -> None:
    assert params.of(Generation((1, 2), max_tokens=4)).detokenize is False
    made = params.of(Generation((1, 2), max_tokens=4, stop=("</answer>",)))
    assert (made.detokenize, made.stop) == (True, ["</answer>"])


def test_alike_requests_share_their_parameters_and_sampled_ones_never_do(params: Params) -> None:
    made = params.of(Generation((1, 2), read=(7,), max_tokens=1))
    assert params.of(Generation((3, 4), read=(7,), max_tokens=1)) is made
    for other in (Generation((1, 2), read=(8,), max_tokens=1), Generation((1, 2), read=(7,), max_tokens=2)):
        assert params.of(other) is not made
    assert params.of(Generation((1, 2), seed=1)).seed == 1
    assert params.of(Generation((1, 2), seed=2)).seed == 2


def test_what_vllm_raises_for_a_request_that_it_will_not_take_is_among_the_refusals() -> None:
    from vllm import SamplingParams

    with pytest.raises(refusals()):
        SamplingParams(temperature=-1.0)
    assert not issubclass(RuntimeError, refusals())
