"""The engine against a forward pass of transformers in float32, on a real small model."""

from __future__ import annotations

import math
import random
import threading
from dataclasses import replace

import pytest

from wdct_dist.config.schema import Dtype, EngineConfig, PromptConfig, PromptFormat, SamplingConfig
from wdct_dist.engine.render import Renderer, rendered_digest
from wdct_dist.prompts.types import ANSWER_SLOT, Message

pytestmark = [
    pytest.mark.slow,
    # vLLM, torch and transformers warn about each other
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"),
]

QUESTIONS = [
    "Should children learn to compete?\n{0}. They should compete more.\n{1}. They should cooperate more.",
    "Your neighbour has lost her keys. What do you do?\n{0}. You help her look for them.\n{1}. You close the door.",
    "Is it right to read a friend's diary?\n{0}. Yes, always.\n{1}. No, never.",
    "Which is heavier?\n{0}. A feather.\n{1}. A mountain.",
]


@pytest.fixture(scope="module")
def model_dir(small_model):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    return small_model


@pytest.fixture(scope="module")
def start(model_dir):
    """Starts engines one after the other; the last one is closed with the module."""
    from wdct_dist.checkpoints.types import Checkpoint
    from wdct_dist.engine.vllm_engine import start_vllm

    checkpoint = Checkpoint("small", "d" * 64, model_dir, "", "LlamaForCausalLM", "s", 0, "bfloat16", 8192, True, "directory")
    running = []

    def started(sampling=None):
        settings = EngineConfig(dtype=Dtype.float32, max_model_len=256, cpu_cache_gib=0.5)
        while running:
            running.pop().close()
        running.append(start_vllm(checkpoint, settings, PromptConfig(), sampling or SamplingConfig(), 1))
        return running[-1]

    yield started
    while running:
        running.pop().close()


@pytest.fixture(scope="module")
def engine(start):
    return start()


@pytest.fixture(scope="module")
def renderer(model_dir):
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(model_dir), PromptFormat.auto, PromptConfig())


@pytest.fixture
def ask(make_prompt):
    """The prompts of all questions in both orders, with some labels."""

    def prompts(labels=("A", "B")):
        return [
            make_prompt(
                question.format(*labels) + f"\n\nAnswer with {labels[0]} or {labels[1]}.",
                labels=labels,
                permutation=permutation,
                prompt_id=f"{number}{permutation}",
            )
            for number, question in enumerate(QUESTIONS)
            for permutation in ((0, 1), (1, 0))
        ]

    return prompts


def expected(prompt, spellings, renderer, reference):
    """Option logprobs by brute force: the sum over spellings of the product along each, the permutation undone."""
    ids = renderer.render([prompt])[0].token_ids
    by_label = []
    for label in prompt.labels:
        total = 0.0
        for path in spellings[label]:
            total += math.exp(sum(float(reference([*ids, *path[:depth]])[token]) for depth, token in enumerate(path)))
        by_label.append(math.log(total))
    return tuple(by_label[prompt.permutation.index(option)] for option in range(len(by_label)))


def tokens(renderer, *spellings):
    return [tuple(renderer._tokenizer.convert_tokens_to_ids(list(path))) for path in spellings]


def test_option_logprobs_are_those_of_a_float32_forward_pass(engine, renderer, reference, ask):
    spellings = {label: tokens(renderer, [label], [f"Ġ{label}"]) for label in "AB"}
    for prompt, response in zip(ask(), engine.answer(ask(), 0), strict=True):
        assert response.error is None
        assert response.option_logprobs == pytest.approx(expected(prompt, spellings, renderer, reference), abs=2e-4)
        assert response.label_mass == pytest.approx(sum(map(math.exp, response.option_logprobs)))


def test_improbable_labels_are_read_just_as_exactly(engine, renderer, reference, ask):
    prompts = [replace(prompt, labels=("q", "~")) for prompt in ask()[:2]]
    spellings = {label: tokens(renderer, [label], [f"Ġ{label}"]) for label in "q~"}
    for prompt, response in zip(prompts, engine.answer(prompts, 0), strict=True):
        logprobs = reference(renderer.render([prompt])[0].token_ids)
        assert all(int((logprobs > logprobs[path[0]]).sum()) > 1000 for paths in spellings.values() for path in paths)
        assert response.option_logprobs == pytest.approx(expected(prompt, spellings, renderer, reference), abs=5e-4)
        assert max(response.option_logprobs) < -10


def test_labels_of_several_tokens_have_the_product_along_them(engine, renderer, reference, ask):
    spellings = {f"({letter})": tokens(renderer, ["(", letter, ")"], ["Ġ(", letter, ")"]) for letter in "ab"}
    prompts = ask(("(a)", "(b)"))[:4]
    for prompt, response in zip(prompts, engine.answer(prompts, 0), strict=True):
        assert response.option_logprobs == pytest.approx(expected(prompt, spellings, renderer, reference), abs=5e-4)
        assert response.num_output_tokens == 7  # the first place, `(`, ` (`, and each of these with its letter


def test_text_and_counts_are_those_of_the_first_token(engine, renderer, reference, ask):
    prompt = ask()[0]
    rendered = renderer.render([prompt])[0]
    response = engine.answer([prompt], 5)[0]
    assert (response.prompt_id, response.trial) == (prompt.prompt_id, 5)
    assert response.text == renderer._tokenizer.decode([int(reference(rendered.token_ids).argmax())])
    assert response.finish_reason == "length"
    assert response.num_prompt_tokens == len(rendered.token_ids)
    assert response.num_output_tokens == 1
    assert response.rendered_digest == rendered_digest(rendered.token_ids)


def test_a_prompt_asked_again_comes_from_the_prefix_cache(engine, make_prompt):
    prompt = make_prompt("Is this question new? " * 5)
    first, second = engine.answer([prompt], 0)[0], engine.answer([prompt], 0)[0]
    assert first.num_cached_tokens < second.num_cached_tokens
    blocks = (first.num_prompt_tokens - 1) // engine.facts.settings["block_size"]  # the last token is always computed
    assert second.num_cached_tokens == blocks * engine.facts.settings["block_size"]
    assert second.option_logprobs == pytest.approx(first.option_logprobs, abs=1e-4)


def test_special_tokens_are_sent_once(engine, renderer, ask):
    ids = renderer.render(ask()[:1])[0].token_ids
    opening = renderer._tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert ids.count(opening) == 3  # the template's own system message, the question, the reply
    assert engine.answer(ask()[:1], 0)[0].num_prompt_tokens == len(ids)


def test_answers_do_not_depend_on_the_order_of_the_prompts(engine, ask):
    prompts = ask() + ask(("1", "2"))
    shuffled = random.Random(3).sample(range(len(prompts)), len(prompts))
    together = engine.answer(prompts, 0)
    by_place = dict(zip(shuffled, engine.answer([prompts[place] for place in shuffled], 0), strict=True))
    for place, response in enumerate(together):
        assert by_place[place].prompt_id == response.prompt_id
        assert by_place[place].option_logprobs == pytest.approx(response.option_logprobs, abs=1e-4)


def test_calls_from_several_threads_are_answered_as_one_would_be(engine, ask):
    calls = {"A": ask(), "1": ask(("1", "2")), "C": ask(("C", "D"))}
    alone = {name: engine.answer(prompts, 0) for name, prompts in calls.items()}
    answered = {}
    threads = [threading.Thread(target=lambda name=name: answered.update({name: engine.answer(calls[name], 0)})) for name in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, responses in alone.items():
        assert [response.prompt_id for response in answered[name]] == [response.prompt_id for response in responses]
        for one, other in zip(answered[name], responses, strict=True):
            assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=1e-4)


def test_a_call_longer_than_a_slice_keeps_its_order(engine, make_prompt):
    prompts = [make_prompt(str(number), prompt_id=str(number)) for number in range(150)]
    responses = engine.answer(prompts, 0)
    assert [response.prompt_id for response in responses] == [prompt.prompt_id for prompt in prompts]
    assert all(response.error is None for response in responses)
    assert engine.answer(prompts[7:8], 0)[0].option_logprobs == pytest.approx(responses[7].option_logprobs, abs=1e-4)


def test_calls_at_once_hand_over_their_prompts_one_after_the_other(engine, make_prompt, monkeypatch):
    handed = []
    put = engine._vllm.put
    monkeypatch.setattr(engine._vllm, "put", lambda asked: handed.append(asked[0].trial) or put(asked))
    prompts = [make_prompt(str(number), prompt_id=str(number)) for number in range(70)]
    calls = [threading.Thread(target=engine.answer, args=(prompts, trial)) for trial in (0, 1)]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert handed in ([0, 0, 1, 1], [1, 1, 0, 0])


def test_a_call_without_prompts_has_no_responses(engine):
    assert engine.answer([], 0) == []


def test_a_prompt_that_is_too_long_is_an_error_and_the_others_are_answered(engine, make_prompt, ask):
    long = make_prompt("word " * 400, prompt_id="long")
    before, error, after = engine.answer([ask()[0], long, ask()[1]], 1)
    assert (error.prompt_id, error.trial, error.option_logprobs) == ("long", 1, None)
    assert "the prompt is too long: " in error.error
    assert "the engine takes 255 and one for the reply; raise engine.max_model_len" in error.error
    assert before.error is None
    assert after.error is None


def test_a_prompt_that_fills_the_model_to_the_last_token_is_answered(engine, renderer, make_prompt):
    frame = len(renderer.render([make_prompt("word" + " word" * 99)])[0].token_ids) - 100
    fitting, too_long = (make_prompt("word" + " word" * (count - frame - 1)) for count in (255, 256))
    assert engine.answer([fitting], 0)[0].num_prompt_tokens == 255
    assert "too long: 256 tokens" in engine.answer([too_long], 0)[0].error


def test_a_request_that_vllm_refuses_is_an_error_and_the_engine_goes_on(engine, make_prompt, ask, monkeypatch):
    monkeypatch.setattr(engine._loaded.asker, "_max_model_len", 10**6)
    error, after = engine.answer([make_prompt("word " * 400), ask()[0]], 0)
    assert "maximum" in error.error
    assert after.error is None


def test_a_prompt_that_is_no_text_is_an_error_and_the_others_are_answered(engine, make_prompt, ask):
    before, error, after = engine.answer([ask()[0], make_prompt("half a pair: \ud83d"), ask()[1]], 0)
    assert "cannot encode this prompt" in error.error
    assert before.error is None
    assert after.error is None


def test_more_ids_than_vllm_reads_at_once_are_read_in_parts(engine, ask, monkeypatch):
    from wdct_dist.engine import steps

    whole = engine.answer(ask()[:2] + ask(("1", "2"))[:2], 0)
    monkeypatch.setattr(steps, "MOST_IDS", 3)
    parts = engine.answer(ask()[:2] + ask(("1", "2"))[:2], 0)
    assert [response.num_output_tokens for response in whole] == [1, 1, 2, 2]
    assert [response.num_output_tokens for response in parts] == [2, 2, 2, 2]
    for one, other in zip(whole, parts, strict=True):
        assert one.option_logprobs == pytest.approx(other.option_logprobs, abs=1e-4)


def test_a_begun_reply_is_continued(engine, renderer, reference, make_prompt):
    prompt = make_prompt(messages=(Message("user", QUESTIONS[3].format("A", "B")), Message("assistant", "Answer: ")))
    spellings = {label: tokens(renderer, [label], [f"Ġ{label}"]) for label in "AB"}
    response = engine.answer([prompt], 0)[0]
    assert response.option_logprobs == pytest.approx(expected(prompt, spellings, renderer, reference), abs=2e-4)


def test_the_facts_are_those_of_the_engine_that_runs(engine):
    import torch
    import vllm

    facts = engine.facts
    assert (facts.kind, facts.dtype, facts.max_model_len) == ("vllm", "float32", 256)
    assert facts.versions["vllm"] == vllm.__version__
    assert facts.versions["torch"] == torch.__version__
    assert facts.hardware
    assert facts.settings["prompt_format"] == "chat"
    assert facts.settings["prefix_caching"] is True
    assert facts.settings["block_size"] == 16  # wherever float32 is computed: vLLM's own on a GPU, ours on a CPU
    assert "tensor parallel 1" in facts.notes


def test_sampled_text_changes_with_the_trial_and_the_probabilities_do_not(engine, start, make_prompt):
    prompts = [make_prompt(f"Say any word, number {number}.", prompt_id=str(number)) for number in range(8)]
    greedy = engine.answer(prompts, 0)
    hot = start(SamplingConfig(temperature=2.0, max_new_tokens=12))  # closes the other engine: the last test of this file
    first, again, other = hot.answer(prompts, 0), hot.answer(prompts, 0), hot.answer(prompts, 1)
    assert [response.text for response in first] == [response.text for response in again]
    assert [response.text for response in first] != [response.text for response in other]
    for responses in (first, other):
        for one, cold in zip(responses, greedy, strict=True):
            assert one.option_logprobs == pytest.approx(cold.option_logprobs, abs=1e-4)

    conversation = (Message("user", "A or B?"), Message("assistant", ANSWER_SLOT), Message("user", "And now, A or B?"))
    prompts = [
        *(make_prompt(f"Why {number}?", prompt_id=f"r{number}", mode="reason", answer_cue="\nAnswer:") for number in range(4)),
        *(make_prompt(messages=conversation, prompt_id=f"c{number}", reply_tokens=4) for number in range(32)),
    ]
    first, again, other = ([(r.reasoning, r.said, r.text) for r in hot.answer(prompts, trial)] for trial in (0, 0, 1))
    assert first == again
    assert all(one[0] != another[0] for one, another in zip(first[:4], other[:4], strict=True))
    assert {said for _, said, _ in first[4:]} == {"A", "B"}
    assert [said for _, said, _ in first[4:]] != [said for _, said, _ in other[4:]]
